/** XOSAN as a guest sees it: a volume that is open on its host, over its unix socket. */
import { closeVolume, createVolume, destroyVolume, openVolume } from '../../../cli/lab/pool.ts'
import { type Labs } from '../labs.ts'
import { unixUri } from './nbd.ts'
import { type System } from './system.ts'

/** @param labs have TLS between hosts, and etcd */
export function xosanSystems(labs: Labs): readonly System[] {
  const system = (copies: number): System => ({
    name: `xosan-${copies}`,
    title: `XOSAN, ${copies === 1 ? 'one copy' : `${copies} copies`}`,
    copies,
    about: `a volume with ${copies === 1 ? 'one replica' : `${copies} replicas`}, TLS between hosts, a client that flushes`,
    start: async ({ bytes }) => {
      const lab = await labs.get(copies)
      const host = lab.hosts[0]!
      const volume = await createVolume(host, lab.sr.sr, 'bench', bytes)
      const { socket, exportName } = await openVolume(host, volume)
      const { prefix } = await labs.host(lab, host)
      return {
        target: { kind: 'nbd', uri: unixUri(socket, exportName) },
        prefix,
        pids: async () => {
          const controls = await Promise.all(lab.hosts.map(async each => lab.control(each)))
          const all = await Promise.all(controls.map(async control => control.processes()))
          return all.flat().map(({ pid }) => pid)
        },
        stop: async () => {
          await closeVolume(host, volume)
          await destroyVolume(host, volume)
        },
      }
    },
  })
  const two = system(2)
  return [
    system(1),
    two,
    system(3),
    {
      ...two,
      name: 'xosan-2-durable',
      title: 'XOSAN, 2 copies, durable',
      about:
        'the same volume with a client that never flushes, as tapdisk: every write is durable before its answer',
      neverFlushes: true,
      sameAs: two.name,
    },
  ]
}
