"""The demo's own photos and weights: everything `wildtune demo` needs, made by this project, no download.

`animals` draws the photos, `weights` names the embedded backbone. The rest is how an animal is drawn:
`species` (proportions and colours), `body` (skeleton to height field), `coat` (pattern, fur, light),
`habitat` and `camera`.
"""
