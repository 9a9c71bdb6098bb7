import { setTimeout as delay } from 'node:timers/promises'
import { type Command } from 'commander'
import { type VolumeSummary } from '../../rpc/control-api.ts'
import { formatProgress } from '../format.ts'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'
import { keyOf } from './volume.ts'

/** Between two looks at the progress: often enough to look alive. */
const POLL_TTY_MS = 250
/** In a log every line stays. */
const POLL_LOG_MS = 2_000

export function addResyncCommand(program: Command): void {
  withDaemon(program.command('resync'))
    .description('bring the stale replicas of a volume up to date, and show how far that is')
    .argument('<volume>', 'key of the volume, or its name if no other one has it')
    .option('--no-wait', 'only order it')
    .addHelpText('after', '\nCtrl-C ends the display; the resync goes on.')
    .action(async (given: string, options: DaemonOptions & { readonly wait: boolean }) => {
      await askDaemon(options, async (daemon, out) => {
        const volume = await keyOf(daemon, given)
        await daemon.call('volume.resync', { volume })
        const started = performance.now()
        let shown = await daemon.call('volume.show', { volume })
        while (options.wait && !isInSync(shown)) {
          out.progress(progressLine(shown, performance.now() - started))
          await delay(process.stdout.isTTY ? POLL_TTY_MS : POLL_LOG_MS)
          shown = await daemon.call('volume.show', { volume })
        }
        out.result(shown)
        out.line(
          isInSync(shown)
            ? `All ${shown.replicas.length} replicas are in-sync.`
            : `The resync is under way; see \`xosan volume show ${volume}\`.`
        )
      })
    })
}

const isInSync = ({ replicas }: VolumeSummary): boolean => replicas.every(({ state }) => state === 'in-sync')

function progressLine({ replicas }: VolumeSummary, elapsedMs: number): string {
  const rebuilding = replicas.filter(({ state }) => state === 'rebuilding')
  if (rebuilding.length === 0) {
    const away = replicas.filter(({ state }) => state === 'stale').map(({ hostName }) => hostName)
    return `waiting for ${away.join(', ')}`
  }
  const total = rebuilding.reduce((sum, { totalBytes }) => sum + totalBytes, 0)
  const done = rebuilding.reduce((sum, { doneBytes }) => sum + doneBytes, 0)
  return `${rebuilding.map(({ hostName }) => hostName).join(', ')} ${formatProgress(done, total, elapsedMs)}`
}
