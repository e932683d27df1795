"""Answering over HTTP with the promoted model, and remembering what was asked.

    client ──▶ app ──▶ batcher ──▶ predictor (swapped by the follower when the Deployment record changes)
                │
                └──▶ capture ──▶ store

`deploy.start` runs it on Ray Serve; everything but `server` and `deploy` works without Ray.
"""
