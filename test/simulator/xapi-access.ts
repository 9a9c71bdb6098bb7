import { type SrId } from '../../core/units.ts'
import { type VolumeAccess } from './administrator.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type SimulatedPool } from './simulated-pool.ts'
import { type SimulatedVolume } from './simulated-volume.ts'

/** Guests come and go by the calls that xapi makes. */
export function throughXosand(pool: SimulatedPool, sr: SrId): VolumeAccess {
  const call = async (
    { key }: SimulatedVolume,
    host: SimulatedHost,
    name: string,
    domain: string
  ): Promise<void> => {
    const parameters = { uri: `xosan://${sr}/${key}`, domain }
    const answer = await pool.call(pool.daemonOf(host), 'datapath', name, parameters)
    if (answer.kind !== 'done') throw new Error(answer.kind === 'lost' ? 'xosand is not there' : answer.error)
  }
  return {
    activate: async (volume, host) => {
      // Nobody is there any more of those who had it on this host before.
      await call(volume, host, 'Datapath.detach', '')
      const domain = pool.newDomain()
      try {
        await call(volume, host, 'Datapath.attach', domain)
        await call(volume, host, 'Datapath.activate', domain)
      } catch (error) {
        await call(volume, host, 'Datapath.detach', domain).catch(() => undefined)
        throw error
      }
    },
    deactivate: async (volume, host) => call(volume, host, 'Datapath.deactivate', ''),
  }
}
