"""An OpenID Connect provider inside the gateway, so that an application in development has real sign-in.

    users     the file of users, and their passwords
    provider  discovery, keys, authorize, token, userinfo, end of session

It speaks the protocol as any other provider does; only its users are in a file. It belongs on a developer's machine.
"""
