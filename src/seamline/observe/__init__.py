"""What a running application told: taken in, kept, searched, watched for change, and explained.

Emitting is ``kernel.signal``'s and the rooms' own; showing is the portal's. Nothing here is in the way of a call:
where it cannot keep up, telemetry is dropped and counted, never the application's work.
"""
