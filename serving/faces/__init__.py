"""Faces: from a photo to the people in it, by 128 numbers a face.

Read the modules in the order in which a photo travels:

1. `face`: the data (Box, Quality, FoundFace, Detection).
2. `dlib/`: `weights`, `detector` (photo -> aligned faces), `quality`, `encoder` (faces -> 128 numbers each).
3. `encoder`: the protocol of an encoder; `served_encoder`: the model server's, with dlib as its fallback.
4. `galleries/`: the known people. `gallery` (protocol of a store), `stores` (a store by its URL), `sqlite_store`,
   `postgres_store`, `empty_store`, `matching` (exact search), `encryption`, `export_file`, `tolerance_advice`.
5. `recognition`: identify and compare; `enrolment`: judge a photo and store it; `annotation`: draw the answer.
6. `service/`: keeps dlib in processes of its own. `server` -> `pool` -> `worker`, with `messages` between them; a
   gateway uses `client`. `python -m serving.faces` starts it, with `settings`.
"""
