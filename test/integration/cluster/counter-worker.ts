/**
 * Counts up its own member of a shared record through the embedded coordinator and prints a line for each success.
 * Arguments: database file, name, how often.
 */
import { openEmbeddedCoordinator } from '../../../cluster/embedded/embedded-coordinator.ts'
import { update } from '../../../cluster/update.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'

const [path = '', name = '', times = '0'] = process.argv.slice(2)
const clock = createNodeClock()
const coordinator = await openEmbeddedCoordinator({
  path,
  clock,
  random: nodeRandom,
  callTimeMs: millis(60_000),
})
process.stdout.write('ready\n')
for (let i = 1; i <= Number(times); i++) {
  await update(
    { coordinator, clock, random: nodeRandom },
    'counts',
    current => {
      const counts = JSON.parse(current?.value ?? '{}') as Record<string, number>
      const counted = counts[name] ?? 0
      return counted === i ? 'unchanged' : { value: JSON.stringify({ ...counts, [name]: counted + 1 }) }
    },
    millis(clock.now() + 120_000)
  )
  process.stdout.write('counted\n')
}
await coordinator.close()
