#!/bin/sh
# Remove what a service never reads from a folder of packages: tests, stubs, headers, and dlib's model of 68 landmarks
# (100 MB; Sightline uses the one of 5).
set -eu
find "$1" -depth \( -path '*/tests' -o -name '*.pyi' -o -name '*.a' -o -name '*.h' -o -name '*.hpp' -o -name '*.cpp' -o -name '*.pxd' \) -exec rm -rf {} +
rm -f "$1"/face_recognition_models/models/shape_predictor_68_face_landmarks.dat
