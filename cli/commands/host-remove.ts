import { type Command } from 'commander'
import { z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { type HostSummary, type VolumeSummary } from '../../rpc/control-api.ts'
import { confirmByTyping } from '../confirm.ts'
import { type Console } from '../console.ts'
import { type DaemonClient } from '../daemon-client.ts'
import { EXIT } from '../failure.ts'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'

interface RemoveOptions extends DaemonOptions {
  readonly yes?: true
  readonly giveUpVolumes?: true
}

const UNKNOWN = { address: 'an unknown address', state: 'down', total: 0, free: 0 } as Omit<
  HostSummary,
  'uuid' | 'name'
>
/** So many volumes are named in a sentence; with more it would say less. */
const NAMED_MAX = 5
/** When the host holds the authority, every member of etcd is restarted twice. */
const REMOVE_MS = 600_000

export function addHostRemoveCommand(host: Command): void {
  withDaemon(host.command('remove'))
    .description('end the membership of a host: its certificates are worthless from now on')
    .argument('<host>', 'name of the host, or its UUID')
    .option('--yes', 'do not ask')
    .option('--give-up-volumes', 'even if volumes are lost by it')
    .action(async (given: string, options: RemoveOptions) => {
      await askDaemon(options, async (daemon, out) => {
        const host = await hostNamed(daemon, given)
        const volumes = await daemon.call('volume.ls', {})
        refuseLoss(host, volumes, options.giveUpVolumes === true)
        explain(out, host, volumes)
        const question = `Type the name of the host (${host.name}) to remove it:`
        if (options.yes !== true && !(await confirmByTyping(question, host.name))) {
          out.line('Nothing was changed.')
          process.exitCode = EXIT.failed
          return
        }
        out.progress(`Removing ${host.name} ...`)
        const removed = await daemon.call('host.remove', { host: host.uuid }, REMOVE_MS)
        out.result(removed)
        out.line(`${host.name} is removed.`)
        if (removed.successor !== null) {
          out.paragraph(
            'This host holds the authority of the SR from now on; nobody trusts the one before any more.',
            ''
          )
        }
        if (!removed.revoked) {
          out.paragraph(
            'The host that holds the authority could not be asked, so etcd still trusts the certificates of ' +
              `${host.name} until that host is back. Keep ${host.name} off the network until then.`,
            ''
          )
        }
      })
    })
}

/** @throws XosanError INVALID_ARGUMENT when no host or more than one has the name */
async function hostNamed(daemon: DaemonClient, given: string): Promise<HostSummary> {
  const hosts = await daemon.call('host.ls', {})
  const found = hosts.filter(({ uuid, name }) => uuid === given || name === given)
  const [only] = found
  if (only !== undefined && found.length === 1) return only
  // A member that never got as far as to be listed, or whose removal was broken off: the daemon knows.
  if (z.uuid().safeParse(given).success)
    return { ...UNKNOWN, uuid: given as HostSummary['uuid'], name: given }
  const reason =
    only === undefined
      ? `the hosts are ${hosts.map(({ name }) => name).join(', ')}`
      : 'several hosts have this name; give its UUID'
  throw new XosanError('INVALID_ARGUMENT', { what: `host ${given}`, reason })
}

/** Whether all that is left of a volume's content is on a host. */
const isOnlyOn = ({ replicas }: VolumeSummary, host: HostSummary): boolean => {
  const inSync = replicas.filter(({ state }) => state === 'in-sync')
  return inSync.length > 0 && inSync.every(replica => replica.host === host.uuid)
}

/** @throws XosanError INVALID_ARGUMENT when volumes would be lost, unless the caller has said so */
function refuseLoss(host: HostSummary, volumes: readonly VolumeSummary[], isMeant: boolean): void {
  const lost = volumes.filter(volume => isOnlyOn(volume, host))
  if (lost.length === 0 || isMeant) return
  throw new XosanError('INVALID_ARGUMENT', {
    what: `removing ${host.name}`,
    reason:
      `it has the only in-sync replica of ${namesOf(lost)}; bring the others up to date first ` +
      '(`xosan resync`), or give these volumes up with --give-up-volumes',
  })
}

function explain(out: Console, host: HostSummary, volumes: readonly VolumeSummary[]): void {
  const replicas = volumes.filter(volume => volume.replicas.some(replica => replica.host === host.uuid))
  const served = volumes.filter(({ primary }) => primary === host.uuid)
  const lost = volumes.filter(volume => isOnlyOn(volume, host))
  out.paragraph(`Removing host ${host.name} (${host.uuid}) at ${host.address}, which is ${host.state}:`, '  ')
  const point = (text: string): void => out.paragraph(`  - ${text}`, '    ')
  point(
    'No other host speaks to it any more, whatever certificates it holds. It can only join again as a new member.'
  )
  if (served.length > 0) point(`It serves ${namesOf(served)}: their guests there stop doing I/O.`)
  if (replicas.length > 0)
    point(`Its replicas of ${namesOf(replicas)} are not used any more. Their files stay there.`)
  if (lost.length > 0) point(`LOST for this SR, for want of another in-sync replica: ${namesOf(lost)}.`)
}

function namesOf(volumes: readonly VolumeSummary[]): string {
  const names = volumes.slice(0, NAMED_MAX).map(({ key, name }) => (name === '' ? key : `"${name}"`))
  const others = volumes.length - names.length
  return others === 0 ? names.join(', ') : `${names.join(', ')} and ${others} more`
}
