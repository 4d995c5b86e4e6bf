"""The command line of the helpers: predicts the classes of a folder of images with a saved model."""

import sys
from pathlib import Path

from tlhelpers import terminal

INTERRUPTED = 130  # as shells count it


def main(arguments=None):
    """The command line."""
    parser = terminal.make_parser("tlhelpers", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="write a table of predictions; can be stopped and started again")
    predict.add_argument("model", type=Path, help="a model that a chapter has saved, ending in .keras")
    predict.add_argument("folder", type=Path, help="every picture below it is looked at")
    predict.add_argument("--out", type=Path, default=Path("predictions.csv"), help="default: %(default)s")
    predict.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names, where none were saved with the model"
    )
    predict.add_argument("--size", type=int, metavar="PIXELS", help="side of the images, where the model takes any")
    options = parser.parse_args(arguments)
    with terminal.without_startup_messages():
        return _predict(options)


def _predict(options):
    from tlhelpers import files, predictions, training  # here, because TensorFlow takes seconds to load

    try:
        counts = predictions.predict_folder(
            options.model, options.folder, options.out, class_names=options.classes, image_size=options.size
        )
    except (OSError, ValueError) as error:
        print(f"Stopped: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    for verdict, count in sorted(counts.items()):
        print(f"{verdict}: {count:,}")
    print(f"The table: {files.shown_name(options.out)}")
    if origin := training.saved_origin(options.model):
        print(f"The model's backbone: {origin}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
