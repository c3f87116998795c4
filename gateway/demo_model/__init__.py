"""The demo model server: a separate small program that speaks the OpenAI dialect and computes nothing clever.

`python -m gateway.demo_model --port 9443 --certificate server.pem --key server.key`

It stands where a real model stands, so that a completion can be seen from end to end without one. Its answers
follow from the request alone (`completer`), its pace is adjustable (`dialect.Pace`), and it records which streams
their client reset (`ledger`). No package of the gateway imports it and it imports none of them.
"""
