"""The door: ``python train.py fit`` and its siblings validate, test and predict."""

from jepa_train.cli import main

if __name__ == "__main__":
    main()
