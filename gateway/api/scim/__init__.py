"""SCIM 2.0 (RFC 7644) of each organization, `/scim/v2/{org}` on the admin listener: raw ASGI, one table of
routes."""
