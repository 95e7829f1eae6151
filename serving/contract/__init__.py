"""The leaf that export, gateway and clients share. Imports the standard library, numpy and Pillow, nothing else.

Read in the order in which a picture travels: `image` -> `preprocessing` -> (the model) -> `prediction`;
`card` says what a model is, `errors` what can go wrong.
"""
