#!/bin/sh
# Remove from a folder of packages what a service never reads: tests, stubs, headers, and dlib's 68 landmarks (100 MB),
# of which Sightline uses the model of 5.
set -eu
find "$1" -depth \( -path '*/tests' -o -name '*.pyi' -o -name '*.a' -o -name '*.h' -o -name '*.hpp' -o -name '*.cpp' -o -name '*.pxd' \) -exec rm -rf {} +
rm -f "$1"/face_recognition_models/models/shape_predictor_68_face_landmarks.dat
