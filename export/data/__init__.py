"""Images and labels for training: data sets, folders, augmentation, class balance."""
