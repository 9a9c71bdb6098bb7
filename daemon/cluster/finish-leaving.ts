import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Config } from '../config.ts'
import { type Log } from '../log.ts'
import { etcdPath, readClusterFile, removeClusterFile, trustPath } from './cluster-file.ts'
import { removeMember } from './etcd-part.ts'

/**
 * Removes what a host has of a cluster that it is leaving, or that it never quite joined. Called before anything of it
 * is opened; killed on the way, it is called again by the next start.
 *
 * Stores are not touched: what is in them goes when its tombstones say so, and never because a host has left.
 */
export async function finishLeaving(config: Config, log: Log): Promise<void> {
  const { stateDirectory } = config
  const file = await readClusterFile(stateDirectory)
  if (file === null || file.phase === 'joined') return
  log.info('removing what is left of a cluster', { sr: file.sr, phase: file.phase })
  await removeMember(config, file, log)
  const catalogue = ['', '-wal', '-shm'].map(suffix => join(stateDirectory, `catalogue.db${suffix}`))
  for (const path of [trustPath(stateDirectory), etcdPath(stateDirectory), ...catalogue]) {
    await rm(path, { recursive: true, force: true })
  }
  // Last: until then the next start would do all this again.
  await removeClusterFile(stateDirectory)
}
