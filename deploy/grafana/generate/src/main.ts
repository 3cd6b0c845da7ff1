// Writes the dashboards into the folder that is given, or beside this module.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { events } from './events.js';
import { hindsight } from './hindsight.js';

const dir = process.argv[2] ?? '..';
for (const [name, builder] of [['events', events()], ['hindsight', hindsight()]] as const) {
  writeFileSync(join(dir, `${name}.json`), JSON.stringify(builder.build(), null, 2) + '\n');
}
