// Parses LogQL. Reads a JSON array of expressions from standard input and writes one of the same
// length: for each, the offset of the first syntax error, or -1.
import { readFileSync } from 'node:fs';
import { parser } from '@grafana/lezer-logql';

function firstError(expr) {
  let at = -1;
  parser.parse(expr).iterate({
    enter(node) {
      if (node.type.isError && at < 0) at = node.from;
    },
  });
  return at;
}

const expressions = JSON.parse(readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(expressions.map(firstError)));
