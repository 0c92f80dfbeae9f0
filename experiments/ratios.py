"""The quick benchmark: how many times the others' throughput the LeNet here has, then and now.

The others are MXNet as usually written and, in prediction, onnxruntime. Ratios of throughputs that
were measured in turns change less from day to day than the throughputs.

A ratio has fallen when its median is below the committed one by more than the noise of both: the
ranges of the middle half of their rounds, added up. What changes from run to run is not in those,
so the noise is at least ``LEAST_NOISE`` of the committed median.
"""
import statistics
import sys

from common import files, markdown
from experiments import competitors, machine
from experiments.competitors import Crew, best

CASES = [(what, add_stn, batch_size)
         for what, batches in (("train", (64, 256)), ("predict", (1, 16, 64, 256)))
         for add_stn in (True, False) for batch_size in batches]
WORKERS = {"train": ["here", "MXNet"],
           "predict": ["here", "MXNet", "onnxruntime, all cores", "onnxruntime, one thread"]}
SECONDS = 0.3  # of each measurement
LEAST_ROUNDS = 5
LEAST_NOISE = 0.05
RESULT = "results/benchmark-quick.json"


def measure(crew, rounds):
    """The ratios of each round, by their names."""
    found = {}
    for case in CASES:
        question = dict(zip(("what", "add_stn", "batch_size"), case))
        names = WORKERS[case[0]]
        crew.prepare(names, **question)
        throughputs = [{name: crew.ask(name, **question, seconds=SECONDS) for name in names}
                       for _ in range(rounds)]
        for other in dict.fromkeys(name.partition(",")[0] for name in names[1:]):
            found[f"{competitors.case_name(*case)}: here / {other}"] = over(throughputs, other)
        print(f"{len(found)} ratios", file=sys.stderr, flush=True)
    return found


def over(throughputs, other):
    """Here / the other in each round; of several settings of the other, the best in most rounds."""
    medians = {name: statistics.median(each[name] for each in throughputs)
               for name in throughputs[0]}
    setting, _ = best(medians, other) or (None, None)
    name = f"{other}, {setting}" if setting else other
    return [each["here"] / each[name] for each in throughputs]


def noise(old, new):
    """By how much the median of a ratio may fall without a mark."""
    return max(_middle_half(old) + _middle_half(new), LEAST_NOISE * statistics.median(old))


def _middle_half(rounds):
    low, _, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return high - low


def fallen(old, new):
    return statistics.median(old) - statistics.median(new) > noise(old, new)


def table(old, new):
    """The Markdown table of the ratios, the committed ones beside the new ones."""
    rows = []
    for name, rounds in new.items():
        now = statistics.median(rounds)
        cells = ["", f"{now:.2f}", "", "", ""]
        if name in old:
            was, usual = statistics.median(old[name]), noise(old[name], rounds)
            cells = [f"{was:.2f}", f"{now:.2f}", f"{now / was - 1:+.0%}", f"{usual / was:.0%}",
                     "fell" if fallen(old[name], rounds) else ""]
        rows.append([name, *cells])
    return markdown.table(["", "committed", "now", "change", "noise", ""], rows)


def verdict(old, new):
    """What the table says, in a line."""
    if not old:
        return f"{RESULT}: there are no committed ratios; --keep writes these"
    fell = [name for name, rounds in new.items() if name in old and fallen(old[name], rounds)]
    if not fell:
        return "No ratio fell by more than its noise."
    return f"Fell by more than the noise: {'; '.join(fell)}."


def load():
    """The committed ratios and what they were measured on; ValueError for another file."""
    return files.figures(RESULT, "experiments.benchmark --quick", _checked) or {"ratios": {}}


def _checked(kept):
    if min(map(len, kept["ratios"].values())) < 2:
        raise ValueError("too few rounds")
    table(kept["ratios"], kept["ratios"])
    machine.differences(kept["about"], kept["about"])


def run(rounds, keep):
    """Measures, prints both, and with ``keep`` writes the new ones as those to commit."""
    files.prepare_output(RESULT)
    old = load()
    with Crew(torch_python=None) as crew:
        about = crew.about("experiments.benchmark", WORKERS["predict"])
        new = measure(crew, max(rounds, LEAST_ROUNDS))
    print(table(old["ratios"], new))
    print()
    if old["ratios"] and machine.differences(old["about"], about):
        print(f"The committed ones were measured elsewhere: "
              f"{machine.differences(old['about'], about)}.")
    print(verdict(old["ratios"], new))
    if keep:
        files.write_json(RESULT, {"about": about, "ratios": new})
