"""Who is asking: sign-in for people, tokens, keys and certificates for programs. Empty without ``[auth]``.

    door         what the gateway asks for each request: a User, nobody, or a refusal
    sign_in      the browser's way to the provider and back, and out again
    sessions     what the sealed cookie says
    cookies      the cookies by name
    exchange     a question to one of the gateway's own pages
    pages        what those look like
    same_origin  return addresses, and requests that another site made a browser send
    bearer       access tokens
    tokens       JWTs of one issuer, and its public keys
    dpop         proofs that the sender of a token holds its key
    api_keys     keys of programs
    certificates clients of mutual TLS
    provider     the OpenID Connect provider, as its client sees it
    outbound     requests to the provider
    sealing      AES-GCM keys that the gateway's processes share
    records      what they share beyond that, in the gateway's own database
    throttle     wrong passwords and keys
    users        claims as a User
    development  an identity provider for development

What a user may do does not belong here: that is policy.
"""
