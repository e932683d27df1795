"""The API service: searches, models and deployments over HTTP, from a machine that has only the client installed.

    schema, client       what travels, and asking for it: no more than pydantic and httpx
    app                  the routes of /api/v1, by subject in `routes`
    access, quotas, idempotency, audit, hardening    who may do what, how often, and what is kept of it
    events               a search as it goes, as server-sent events
    server               an HTTP server around it

A client sends declarations, never code: what is searched is named or described as data, and what runs is ours.
"""
