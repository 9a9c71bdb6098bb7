import { type Command } from 'commander'
import { type ControlResult } from '../../rpc/control-api.ts'
import { type DaemonOptions, askDaemon, withDaemon } from './common.ts'

export function addStatusCommand(program: Command): void {
  withDaemon(program.command('status'))
    .description('how this host does: its daemon, coordinator, datapath processes and SRs')
    .action(async (options: DaemonOptions) => {
      await askDaemon(options, async (daemon, out) => {
        const status = await daemon.call('status', {})
        out.result(status)
        const { host } = status
        out.line(
          `host ${host.name} (${host.uuid}) at ${host.address}, xosand ${status.version}, pid ${status.pid}`
        )
        for (const line of clusterLines(status)) out.paragraph(line, '  ')
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

/** What the host is part of, and who decides there. */
function clusterLines({ cluster, coordinator, srs }: ControlResult<'status'>): string[] {
  // A lab that speaks in clear has no cluster and knows its SRs all the same.
  if (cluster === null && srs.length === 0) return ['in no cluster: there is no SR on this host']
  const { reachable, revision, catalogueRevision } = coordinator
  const behind = revision - catalogueRevision
  const state = reachable
    ? `coordinator reachable, revision ${revision}, catalogue ${behind > 0 ? `${behind} revisions behind` : 'up to date'}`
    : `coordinator not reachable; healthy volumes go on (catalogue at revision ${catalogueRevision})`
  if (cluster === null) return [state]
  const members = cluster.etcdMembers.map(({ address }) => address).join(', ')
  return [
    `cluster of SR ${cluster.sr}, generation ${cluster.generation}, ${cluster.phase}`,
    cluster.coordinator === 'etcd' ? `${state}; etcd on ${members}` : state,
  ]
}
