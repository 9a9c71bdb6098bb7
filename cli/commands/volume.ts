import { type Command } from 'commander'
import { XosanError } from '../../core/errors.ts'
import { type VolumeSummary } from '../../rpc/control-api.ts'
import { type DaemonClient } from '../daemon-client.ts'
import { formatBytes } from '../format.ts'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'

type Replica = VolumeSummary['replicas'][number]

export function addVolumeCommands(program: Command): void {
  const volume = program.command('volume').description('the virtual disks')
  withDaemon(volume.command('ls'))
    .description('every volume of every SR')
    .option('--sr <uuid>', 'only the volumes of this SR')
    .action(async (options: DaemonOptions & { readonly sr?: string }) => {
      await askDaemon(options, async (daemon, out) => {
        const volumes = await daemon.call('volume.ls', options.sr === undefined ? {} : { sr: options.sr })
        out.result(volumes)
        const names = await hostNames(daemon)
        out.table(volumes, [
          { title: 'KEY', value: ({ key }) => key },
          { title: 'NAME', value: ({ name }) => name, shrinks: true },
          { title: 'SIZE', value: ({ size }) => formatBytes(size), align: 'right' },
          { title: 'STATE', value: ({ state }) => state },
          { title: 'PRIMARY', value: ({ primary }) => nameOf(names, primary), shrinks: true },
          { title: 'IN-SYNC', value: inSyncOf, align: 'right' },
        ])
      })
    })
  withDaemon(volume.command('show'))
    .description('one volume: where its replicas are and how they do')
    .argument('<volume>', 'key of the volume, or its name if no other one has it')
    .action(async (given: string, options: DaemonOptions) => {
      await askDaemon(options, async (daemon, out) => {
        const shown = await daemon.call('volume.show', { volume: await keyOf(daemon, given) })
        out.result(shown)
        const names = await hostNames(daemon)
        out.line(`volume   ${shown.key}${shown.name === '' ? '' : `  "${shown.name}"`}`)
        out.line(`SR       ${shown.sr}`)
        out.line(
          `size     ${formatBytes(shown.size)}${shown.physical === null ? '' : `, ${formatBytes(shown.physical)} on this host's disk`}`
        )
        out.line(`state    ${shown.state}`)
        for (const sentence of shown.holding) out.paragraph(`waits    ${sentence}`, '         ')
        out.line(`primary  ${nameOf(names, shown.primary)}, epoch ${shown.epoch}`)
        out.line()
        out.table(shown.replicas, [
          { title: 'HOST', value: ({ hostName }) => hostName, shrinks: true },
          { title: 'REPLICA', value: ({ replica }) => replica },
          { title: 'STATE', value: ({ state }) => state },
          { title: 'PROGRESS', value: progressOf, align: 'right' },
        ])
        for (const { hostName, state, trouble } of shown.replicas) {
          if (trouble !== null) out.paragraph(`${hostName} is ${state} and not connected: ${trouble}`, '  ')
        }
      })
    })
}

/**
 * The key of a volume that was named by key or by name.
 *
 * @throws XosanError INVALID_ARGUMENT when no volume or more than one has the name
 */
export async function keyOf(daemon: DaemonClient, given: string): Promise<string> {
  const volumes = await daemon.call('volume.ls', {})
  const named = volumes.filter(({ key, name }) => key === given || name === given)
  const exact = named.find(({ key }) => key === given) ?? named[0]
  if (exact === undefined || (named.length > 1 && exact.key !== given)) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `volume ${given}`,
      reason: exact === undefined ? 'no volume has this key or name' : 'several volumes have this name',
    })
  }
  return exact.key
}

async function hostNames(daemon: DaemonClient): Promise<Map<string, string>> {
  return new Map((await daemon.call('host.ls', {})).map(({ uuid, name }) => [uuid, name]))
}

const nameOf = (names: ReadonlyMap<string, string>, host: string | null): string =>
  host === null ? '-' : (names.get(host) ?? host)

const inSyncOf = ({ replicas }: VolumeSummary): string =>
  `${replicas.filter(({ state }) => state === 'in-sync').length}/${replicas.length}`

const progressOf = ({ totalBytes, doneBytes }: Replica): string =>
  totalBytes === 0 ? '' : `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`
