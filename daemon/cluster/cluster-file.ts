import { open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { hostId, srId } from '../../rpc/identifiers.ts'

const port = z.int().min(1).max(65_535)

/** A member of etcd, as clients find it. */
const etcdMember = z.strictObject({ host: hostId, address: z.union([z.ipv4(), z.ipv6()]), port })

const clusterSchema = z.strictObject({
  version: z.literal(1),
  /** `forming` and `joining` are undone at the next start, `leaving` is carried out. */
  phase: z.enum(['forming', 'joining', 'joined', 'leaving']),
  sr: srId,
  generation: z.int().min(1),
  coordinator: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('embedded'), path: z.string().startsWith('/') }),
    z.strictObject({ kind: z.literal('etcd'), members: z.array(etcdMember).min(1).max(16) }),
  ]),
})

/** The cluster that a host is in: `cluster.json` in its state directory, written by xosand, read by all its programs. */
export type ClusterFile = z.output<typeof clusterSchema>
export type ClusterEtcdMember = z.output<typeof etcdMember>

export const clusterFilePath = (stateDirectory: string): string => join(stateDirectory, 'cluster.json')
/** Keys and certificates. */
export const trustPath = (stateDirectory: string): string => join(stateDirectory, 'trust')
/** The data of this host's member of etcd. */
export const etcdPath = (stateDirectory: string): string => join(stateDirectory, 'etcd')

/** All keys of one SR and generation in etcd. */
export const etcdNamespace = ({ sr, generation }: Pick<ClusterFile, 'sr' | 'generation'>): string =>
  `xosan/${sr}/${generation}/`

/** @returns null for a host that is in no cluster @throws XosanError INVALID_ARGUMENT when it cannot be understood */
export async function readClusterFile(stateDirectory: string): Promise<ClusterFile | null> {
  const path = clusterFilePath(stateDirectory)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
  try {
    return clusterSchema.parse(JSON.parse(text))
  } catch (error) {
    throw new XosanError('INVALID_ARGUMENT', { what: path, reason: reasonOf(error) })
  }
}

/** Replaces the file, durably: after a crash it is the old one or the new one. */
export async function writeClusterFile(stateDirectory: string, cluster: ClusterFile): Promise<void> {
  const path = clusterFilePath(stateDirectory)
  const unfinished = `${path}.new`
  const file = await open(unfinished, 'w', 0o600)
  try {
    await file.writeFile(`${JSON.stringify(clusterSchema.parse(cluster), null, 2)}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(unfinished, path)
  await syncDirectory(dirname(path))
}

export async function removeClusterFile(stateDirectory: string): Promise<void> {
  const path = clusterFilePath(stateDirectory)
  await rm(path, { force: true })
  await syncDirectory(dirname(path))
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
