// Judges queries by their grammar: reads [{"language": "logql" | "traceql", "text": …}, …] from standard input and
// prints, as JSON, for each query the piece at which it stops being one; null where it is one.
import { readFileSync } from "node:fs";
import { parser as logql } from "@grafana/lezer-logql";
import { parser as traceql } from "@grafana/lezer-traceql";

const parsers = { logql, traceql };

function wrongAt(language, text) {
  let wrong = null;
  parsers[language].parse(text).iterate({
    enter(node) {
      if (node.type.isError && wrong === null) {
        wrong = text.slice(node.from, node.from + 40) || "the end";
      }
    },
  });
  return wrong;
}

const queries = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(queries.map(({ language, text }) => wrongAt(language, text))));
