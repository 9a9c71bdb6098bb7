import { type Command } from 'commander'
import { formatBytes } from '../format.ts'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'
import { addHostRemoveCommand } from './host-remove.ts'

export function addHostCommands(program: Command): void {
  const host = program.command('host').description('the hosts of the pool')
  withDaemon(host.command('ls'))
    .description('every host, whether it answers, and the space of its stores')
    .action(async (options: DaemonOptions) => {
      await askDaemon(options, async (daemon, out) => {
        const hosts = await daemon.call('host.ls', {})
        out.result(hosts)
        const byName = [...hosts].sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
        out.table(byName, [
          { title: 'NAME', value: ({ name }) => name, shrinks: true },
          // The longest column and the one that is least read: it gives way on a narrow terminal.
          { title: 'UUID', value: ({ uuid }) => uuid, shrinks: true },
          { title: 'ADDRESS', value: ({ address }) => address },
          { title: 'STATE', value: ({ state }) => state },
          { title: 'FREE', value: ({ free }) => formatBytes(free), align: 'right' },
          { title: 'TOTAL', value: ({ total }) => formatBytes(total), align: 'right' },
        ])
      })
    })
  addHostRemoveCommand(host)
}
