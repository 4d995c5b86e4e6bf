"""The front page's figure: what the recorded models of the flower study reach, drawn when the site is laid out.

`python -m tlhelpers.book.frontpage` draws it for the README.
"""

import io

import matplotlib.pyplot as plt

from tlhelpers import files, settings
from tlhelpers.experiments import records
from tlhelpers.figures import plotting
from tlhelpers.results import tables

# In the order of the figure, first to last.
MODELS = {
    "baseline_cnn-scratch_augmented": "a network from scratch",
    "mobilenetv2_100-frozen": "frozen MobileNetV2, new head",
    "mobilenetv2_100-last6": "its last six layers fine-tuned",
    "mobilenetv2_100-full_longer": "all of it fine-tuned",
    "efficientnetv2b0-full": "all of EfficientNetV2-B0 fine-tuned",
}
DRAWING, TEXT = "_static/result.svg", "result.md"  # where the README shows it, too
FIXED = {"svg.hashsalt": "tlhelpers"}  # the same bytes for the same records


def write_result(folder, *, recorded=None):
    """Writes the figure and the directive that shows it, which the front page includes.

    Args:
        folder: Path. Where the front page lies.
        recorded: Path or None. The recorded runs; None means the committed ones.
    """
    pooled = _pool(recorded)
    files.write_text(folder / DRAWING, _draw(pooled))
    files.write_text(folder / TEXT, _describe(pooled))


def main():
    """Draws the figure of the README."""
    files.write_text(settings.PROJECT_FOLDER / "book" / DRAWING, _draw(_pool()))


def _pool(recorded=None):
    runs = [run for run in records.load_records("flowers", protocol="careful", folder=recorded) if run.model in MODELS]
    pooled = tables.summarise_pooled(runs).droplevel("protocol")
    return pooled.loc[[model for model in MODELS if model in pooled.index]].rename(index=MODELS)


def _draw(pooled):
    points = pooled.reset_index().assign(source="photographs, with 95 % intervals")
    plotting.use_book_style()
    stream = io.StringIO()
    with plt.rc_context(FIXED):
        figure = plotting.plot_comparison(points).figure
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return stream.getvalue()


def _describe(pooled):
    numbers = ", ".join(f"{model} {row.accuracy:.1%}" for model, row in pooled.iterrows())
    least, most = (f"{end:,.0f}" for end in (pooled["images"].min(), pooled["images"].max()))
    caption = (
        "Five flowers, photographs that no model has trained on: the recorded test accuracy of a network that starts "
        "from nothing and of networks that start from a million other pictures. Each point pools folds in which every "
        f"photograph is tested once, {least} to {most} of them."
    )
    alternative = f"Test accuracy on photographs of flowers: {numbers}."
    return f"```{{figure}} {DRAWING}\n:name: fig-result\n:alt: {alternative}\n\n{caption}\n```\n"


if __name__ == "__main__":
    main()
