"""The report of a run: one HTML file that holds its curves, pictures and facts, and opens without a network."""

import base64
import csv
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medssl.files import write_text
from medssl.render.curves import Points, curve
from medssl.run import Run

NAME = "report.html"
NOTICE = "Research use only. Not for clinical use."
PICTURES = 4
LEVELS = ("_chance", "_random")  # what ends so is drawn as a level beside the curve it belongs to
MEANING = {
    "monitor_rank": "dimensions the embeddings use (RankMe)",
    "monitor_spread": "1 on a whole sphere, 0 collapsed",
    "monitor_uniformity": "0 collapsed, lower is more even",
    "monitor_alignment": "squared distance of true pairs",
    "monitor_knn": "part of the body named by neighbours in other volumes; dashed: the commonest part",
    "monitor_knn_site": "site named by neighbours in other volumes; dashed: the commonest site",
    "monitor_knn_modality": "modality named by neighbours in other volumes; dashed: the commonest one",
    "monitor_knn_sex": "sex named by neighbours in other volumes; dashed: the commoner one",
    "monitor_share": "of the time of the steps, spent on monitors",
    "probe_dice": "frozen features, a few labels; dashed: untrained features",
    "crops_per_s": "crops trained on a second",
}
STYLE = """
:root{--paper:#f6f7f9;--card:#fff;--ink:#17202c;--dim:#64748b;--edge:#e2e8f0;--line:#0e7490;--level:#b45309}
@media (prefers-color-scheme:dark){:root{--paper:#0b0e13;--card:#141a23;--ink:#e2e8f0;--dim:#8a96a8;--edge:#263140;
--line:#38bdd8;--level:#f0a050}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}h1{font-size:26px;margin:0}
h2{font-size:17px;margin:36px 0 12px}
.sub,figcaption,footer,dt{color:var(--dim)}.state{border-radius:99px;padding:2px 12px;font-size:13px;margin-left:10px;
vertical-align:4px;background:var(--line);color:var(--card)}.state.stopped{background:var(--level)}
.alarm{background:#b91c1c;color:#fff;border-radius:10px;padding:12px 16px;margin:18px 0}
.grid{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(250px,1fr))}
.wide{grid-template-columns:repeat(auto-fill,minmax(440px,1fr))}.one{grid-template-columns:minmax(0,1fr)}
.card{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:14px 16px;margin:0;min-width:0}
.card b{font-size:15px}.card .last{float:right;font-variant-numeric:tabular-nums;font-weight:600}
figcaption{font-size:12.5px;line-height:1.4}svg{width:100%;display:block;margin:8px 0 4px}
svg text{font-size:10.5px;fill:var(--dim)}.rule{stroke:var(--edge)}.line{fill:none;stroke:var(--line);stroke-width:2}
.level{stroke:var(--level);stroke-dasharray:5 4;stroke-width:1.5}circle{fill:var(--line)}
.hover{fill-opacity:0}.hover:hover{fill-opacity:1}img{width:100%;border-radius:8px;display:block;margin-bottom:6px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0}dd{margin:0;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}pre{margin:0;overflow:auto;font:12.5px/1.5 ui-monospace,monospace}
table{border-collapse:collapse;width:100%;font-size:13px}td,th{text-align:left;padding:3px 10px 3px 0;
border-bottom:1px solid var(--edge)}summary{cursor:pointer}footer{margin-top:40px;font-size:13px}
"""


def write(run: Run) -> Path:
    """Writes report.html into a run that is still open: what is known of it now."""
    path = run.path / NAME
    write_text(path, page(run))
    return path


def page(run: Run) -> str:
    """The report as HTML, without a reference to anything outside itself."""
    card = run.card
    logged = _ended(curves(run.path / "logs" / "metrics.csv"), card.get("scores", {}))
    groups: dict[str, list[str]] = {"Loss, by epoch": [], "Monitors": [], "Scores and speed": []}
    for name in logged:
        if not name.endswith(LEVELS):
            groups[_group(name)].append(name)
    body = [_head(run, card, logged)]
    labels = (card.get("network") or {}).get("labels", {})
    body += [_section(title, [_drawn(n, logged, labels) for n in names]) for title, names in groups.items()]
    body.append(
        _section("Pictures", [_picture(p) for p in _chosen(sorted((run.path / "previews").glob("*.png")))], "wide")
    )
    facts = [_facts("Result", _result(card, labels)), _facts("Made of", _origin(run, card))]
    body.append(_section("Facts", facts, "wide"))
    body.append(_ledger(card.get("transfer")))
    config = (run.path / "config.yaml").read_text(encoding="utf-8")
    body.append(_section("Settings, resolved", [f'<div class="card"><pre>{escape(config)}</pre></div>'], "one"))
    title = escape(f"{card['kind']} {run.path.name}")
    body.append(f"<footer>{NOTICE} medssl {escape(str(card['version']))}.</footer>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def curves(path: Path) -> dict[str, Points]:
    """Every logged number as (epoch, value), epochs counted from 1; nothing where nothing was logged."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [n for n in (rows[0] if rows else {}) if n not in ("epoch", "step")]
    names.sort(key=lambda name: (name != "loss", name))
    return {n: found for n in names if (found := [(int(r["epoch"]) + 1.0, float(r[n])) for r in rows if r[n]])}


def _ended(logged: dict[str, Points], scores: Mapping[str, float]) -> dict[str, Points]:
    """With what was only measured after the last epoch: the probe of the weights that are kept."""
    last = max((points[-1][0] for points in logged.values()), default=0.0)
    return logged | {n: [*logged.get(n, []), (last, scores[n])] for n in scores if n.startswith("probe_")}


def _group(name: str) -> str:
    if name.startswith(("val_", "probe_", "crops_per_s")):
        return "Scores and speed"
    return "Monitors" if name.startswith("monitor_") else "Loss, by epoch"


def _head(run: Run, card: Mapping[str, Any], logged: Mapping[str, Points]) -> str:
    done = "scores" in card
    last = max((int(points[-1][0]) for points in logged.values()), default=0)
    state = "finished" if done else f"stopped after epoch {last}; resume=true goes on"
    badge = f'<span class="state{"" if done else " stopped"}">{state}</span>'
    alarm = f'<div class="alarm"><b>Alarm:</b> {escape(card["alarm"])}.</div>' if "alarm" in card else ""
    sub = f"{escape(card['kind'])}, begun {escape(card['created'])}. {NOTICE}"
    return f'<h1>{escape(run.path.name)}{badge}</h1><div class="sub">{sub}</div>{alarm}'


def _section(title: str, cards: Sequence[str], kind: str = "") -> str:
    return f'<h2>{title}</h2><div class="grid {kind}">{"".join(cards)}</div>' if cards else ""


def _drawn(name: str, logged: Mapping[str, Points], labels: Mapping[str, str]) -> str:
    points = logged[name]
    beside = next((logged[name + end][-1][1] for end in LEVELS if name + end in logged), None)
    values = [y for _, y in points if math.isfinite(y)]
    span = f"{min(values):.4g} to {max(values):.4g}" if values else "never finite"
    said = "; ".join(s for s in (MEANING.get(name, ""), span) if s)
    title = escape(_called(name.removeprefix("monitor_"), labels))
    last = f'<span class="last">{points[-1][1]:.4g}</span>'
    return f'<figure class="card"><b>{title}</b>{last}{curve(points, beside)}<figcaption>{said}</figcaption></figure>'


def _chosen(pictures: Sequence[Path]) -> list[Path]:
    """The first, the last, and some evenly between."""
    if len(pictures) <= PICTURES:
        return list(pictures)
    return [pictures[round(n * (len(pictures) - 1) / (PICTURES - 1))] for n in range(PICTURES)]


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = escape(path.stem.replace("_", " "))
    image = f'<img alt="{name}" src="data:image/png;base64,{data}">'
    return f'<figure class="card">{image}<figcaption>{name}</figcaption></figure>'


def _facts(title: str, facts: Mapping[str, object]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items() if v not in (None, ""))
    return f'<div class="card"><b>{title}</b><dl>{rows}</dl></div>'


def _called(name: str, labels: Mapping[str, str]) -> str:
    """A score in words: val_dice_2 is the `val dice` of what class 2 is called."""
    words, _, number = name.rpartition("_")
    return f"{words.replace('_', ' ')} {labels[number]}" if number in labels else name.replace("_", " ")


def _result(card: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, object]:
    spent = {name.replace("_", " "): value for name, value in card.get("spent", {}).items()}
    return spent | {_called(name, labels): f"{value:.4g}" for name, value in card.get("scores", {}).items()}


def _origin(run: Run, card: Mapping[str, Any]) -> dict[str, object]:
    git, network = card.get("git") or {}, card.get("network") or {}
    changed = " with uncommitted changes" if git.get("changed") else ""
    return {
        "data digest": card.get("manifest"),
        "data card": _plain({n: v for n, v in card.get("data", {}).items() if v}),
        "trained on": _pool(run.path / "pool.json"),
        "labelled cases": ", ".join(card.get("cases", [])),
        "propagated labels": _plain({n: v for n, v in card.get("propagated", {}).items() if v is not None}),
        "code": f"{git['commit']}{changed}" if git else "not a checkout",
        **{n.replace("_", " "): _plain(v) for n, v in network.items() if n != "task" or network.get("labels")},
    }


def _pool(path: Path) -> str:
    if not path.is_file():
        return ""
    cases = json.loads(path.read_text(encoding="utf-8"))
    return f"{len(cases)} cases of {len({case['patient'] for case in cases})} patients"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _ledger(entries: Sequence[Mapping[str, Any]] | None) -> str:
    if not entries:
        return ""
    fates = [entry["fate"] for entry in entries]
    total = ", ".join(f"{fates.count(fate)} {fate}" for fate in ("loaded", "adapted", "skipped"))
    cells = [(e["key"], e["fate"], " x ".join(map(str, e["shape"])), e["reason"]) for e in entries]
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    head = "<tr><th>tensor</th><th>fate</th><th>shape</th><th>why</th></tr>"
    table = f'<details class="card"><summary>{total}</summary><table>{head}{rows}</table></details>'
    return _section("Weights taken over", [table], "one")
