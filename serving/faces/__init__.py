"""Faces: a photo to the people in it, by 128 numbers a face.

Read in the order in which a photo travels: `face` (the words) -> `dlib_models` -> `dlib_detector` -> `encoder`
(protocol; `dlib_encoder`, `served_encoder`) -> `gallery` (protocol; `matching`, `sqlite_store`, `postgres_store`)
-> `recognition` (identify, compare) and `enrolment` (the coach). `pool`, `service` and `client` keep dlib in its
own processes: nothing else imports it.
"""
