"""Answering over HTTP with the promoted model, and remembering what was asked.

    client ──▶ guard ──▶ app, v2 ──▶ batcher ──▶ predictor (swapped by the follower when the Deployment record changes)
             auth, limits      │
                               └──▶ capture ──▶ store

`deploy.start` runs it on Ray Serve; all but `deploy`, `applications`, `readiness` and `edge.edge` works without Ray.
"""
