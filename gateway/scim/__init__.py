"""SCIM 2.0 (RFC 7643, RFC 7644), the part that knows no network and no database: JSON in, JSON out."""
