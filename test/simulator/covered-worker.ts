/**
 * A process that looks into universes as `universe-worker.ts` does, and says in the end what none of them reached. It
 * begins to count before it takes up that script: what runs while a module is evaluated counts like everything else.
 */
import { pathToFileURL } from 'node:url'
import { ReachedCode } from './reached-code.ts'
import { type ToWorker } from './worker-messages.ts'

const script = process.argv[2]!
const reached = await ReachedCode.follow(script)
await import(pathToFileURL(script).href)

process.on('message', ({ ask }: ToWorker) => {
  if (ask !== 'what was not reached') return
  void reached.notReached().then(notReached => process.send!({ notReached }))
})
