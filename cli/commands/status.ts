import { type Command } from 'commander'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'

export function addStatusCommand(program: Command): void {
  withDaemon(program.command('status'))
    .description('how this host does: its daemon, coordinator, datapath processes and SRs')
    .action(async (options: DaemonOptions) => {
      await askDaemon(options, async (daemon, out) => {
        const status = await daemon.call('status', {})
        out.result(status)
        const { host, coordinator } = status
        out.line(
          `host ${host.name} (${host.uuid}) at ${host.address}, xosand ${status.version}, pid ${status.pid}`
        )
        const behind = coordinator.revision - coordinator.catalogueRevision
        out.line(
          coordinator.reachable
            ? `coordinator reachable, revision ${coordinator.revision}, catalogue ${behind > 0 ? `${behind} revisions behind` : 'up to date'}`
            : `coordinator not reachable; healthy volumes go on (catalogue at revision ${coordinator.catalogueRevision})`
        )
        out.line()
        out.table(status.datapaths, [
          { title: 'DATAPATH', value: ({ index }) => String(index), align: 'right' },
          { title: 'STATE', value: ({ up }) => (up ? 'up' : 'down') },
          { title: 'PID', value: ({ pid }) => (pid === null ? '-' : String(pid)), align: 'right' },
          { title: 'VOLUMES', value: ({ volumes }) => String(volumes), align: 'right' },
        ])
        if (status.srs.length > 0) {
          out.line()
          out.table(status.srs, [
            { title: 'SR', value: ({ sr }) => sr },
            { title: 'NAME', value: ({ name }) => name, shrinks: true },
            { title: 'COPIES', value: ({ copies }) => String(copies), align: 'right' },
            { title: 'VOLUMES', value: ({ volumes }) => String(volumes), align: 'right' },
          ])
        }
        for (const warning of status.warnings) {
          out.paragraph(`warning: ${warning}`, '         ')
        }
      })
    })
}
