"""What callers connect to: one edge on each node, in front of the replicas.

Replicas answer HTTP themselves (`autovision.serving.listener`); Ray Serve starts, watches, scales and replaces them,
and the edge too, but no request passes through it. HAProxy carries requests: it takes little of the processor, keeps
connections to replicas open, and sends a request again whose replica died. Where there is no HAProxy the room carries
them all. Requests for which there is no replica wait in a room (`room`), which also wakes a model that sleeps.

    plan      what an edge is told: where to listen, which deployments there are, where replicas answer
    places    the folder of one server's sockets
    haproxy   HAProxy's configuration and process
    room      what is answered without a replica, or once there is one again
    edge      the deployment on Ray Serve that keeps all this equal to the replicas there are
"""
