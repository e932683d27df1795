"""From a timm name to a served network: backbone, stages, head, weights, compiled inference, bundle."""
