"""HTML: one page without scripts, whose tables may be copied into another."""

from __future__ import annotations

from collections.abc import Sequence

from harness.tables.model import BEST, TIED, Quantity, Table, Value
from harness.tables.writers import EMPTY, name, problem_line, writer

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ tables[0].suite if tables else "" }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
figure { margin: 0 0 3rem; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .6rem; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td.text, th.text { text-align: left; }
thead th { border-bottom: 1px solid; border-top: 2px solid; }
tbody tr:last-child > * { border-bottom: 2px solid; }
tbody th { font-weight: normal; }
.interval { opacity: .65; font-size: .85em; }
ol { font-size: .85em; padding-left: 1.6em; }
code { font-size: .92em; overflow-wrap: anywhere; }
</style>
</head>
<body>
{% for table in tables %}
<figure{% if table.citation %} id="{{ table.citation.id }}"{% endif %}>
<table>
<caption><strong>{{ table.caption or table.suite }}: {{ table.title }}.</strong> {{ problem(table) }}.
{%- if table.protocol %} Protocol: {% for one in table.protocol %}<code>{{ one }}</code>{{ "; " if not loop.last }}
{%- endfor %}.{% endif %}</caption>
<thead><tr>
{%- for column in table.columns %}<th scope="col"{% if column.text %} class="text"{% endif %}>{{ column.heading }}</th>
{%- endfor %}</tr></thead>
<tbody>
{% for row in table.rows -%}
<tr><th scope="row">{{ name(table, row) }}{% for note in row.notes %}<sup>[{{ note }}]</sup>{% endfor %}</th>
{%- for column in table.columns[1:] %}<td{% if column.text %} class="text"{% endif %}>
{%- set value = row.values.get(column.key) %}
{%- if number(value) -%}
{% if value.mark == best %}<strong>{{ value.number }}</strong>{% else %}{{ value.number }}{% endif %}
{%- if value.mark == tied %}†{% endif %}
{%- if value.interval %} <span class="interval">{{ value.interval }}</span>{% endif %}
{%- if value.word %} {{ value.word }}{% endif %}
{%- else %}{{ empty if value is none else value }}{% endif %}</td>
{%- endfor %}</tr>
{% endfor -%}
</tbody>
</table>
<figcaption><ol>
{% for note in table.notes -%}
<li>{{ note }}</li>
{% endfor -%}
</ol>
{% if table.citation -%}
<p>Table <code>{{ table.citation.id }}</code>, made by <code>{{ table.citation.command }}</code></p>
{% endif -%}
</figcaption>
</figure>
{% endfor -%}
</body>
</html>
"""


@writer("html", "html")
def html(tables: Sequence[Table]) -> str:
    """A figure a table: caption with the protocol, notes and citation below."""
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=False).from_string(_PAGE)
    return page.render(
        tables=tables, name=name, problem=problem_line, number=_is_number, best=BEST, tied=TIED, empty=EMPTY
    )


def _is_number(value: Value) -> bool:
    return isinstance(value, Quantity)
