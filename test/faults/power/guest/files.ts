import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type BootId, type HostId, type SrId, type StoreId, type VolumeKey } from '../../../../core/units.ts'
import { readClusterFile, writeClusterFile } from '../../../../daemon/cluster/cluster-file.ts'
import { Stores } from '../../../../daemon/stores.ts'
import { AttachmentFile } from '../../../../datapath/process/attachment-file.ts'
import { TrustDirectory } from '../../../../trust/trust-directory.ts'
import { ReferenceFile } from '../../../../volume/reference-file.ts'
import { CYCLE, numberIn, uuidOf } from '../items.ts'
import { readSeed } from './seed.ts'
import { type OpenWorkload } from './workload.ts'

/** Files that end with the boot are read as if they did not, so that it can be seen what is in them. */
const BOOT = uuidOf(3) as BootId
/** Lists have up to so many entries, so that files grow, shrink, and take several blocks. */
const ENTRIES_MAX = 60

interface SmallFile {
  /** Number of the newest item in it; 0 when there is none. @throws Error when it is torn */
  newest(): Promise<number>
  write(item: number): Promise<void>
}

/** So many entries, of which the last carries the item and the others those before it. */
const numbersUpTo = (item: number): number[] => {
  const count = 1 + (item % ENTRIES_MAX)
  return Array.from({ length: count }, (_, index) => item - count + 1 + index).map(number =>
    Math.max(number, 0)
  )
}

/** @throws Error for a list that no item has left */
function newestIn(numbers: readonly number[]): number {
  const newest = numbers.at(-1) ?? 0
  if (newest !== 0 && numbers.join() !== numbersUpTo(newest).join())
    throw new Error(`a mixed list: ${numbers.join()}`)
  return newest
}

/** The small files of xosand and the datapath processes, each through the class that writes it. */
export const openWorkload: OpenWorkload = async directory => {
  const state = join(directory, 'state')
  await mkdir(state, { recursive: true })
  const files: Readonly<Record<string, SmallFile>> = {
    attachments: attachments(state),
    cluster: cluster(state),
    stores: await stores(state, join(directory, 'data')),
    ...(await trust(state)),
    references: references(state),
  }
  return {
    standing: async () => {
      const found: Record<string, string> = {}
      for (const [name, file] of Object.entries(files)) found[name] = String(await file.newest())
      return found
    },
    write: async (chain, item) => files[chain]!.write(item),
  }
}

function attachments(state: string): SmallFile {
  const path = join(state, 'attachments.json')
  const file = new AttachmentFile(path, BOOT, error => {
    throw error
  })
  return {
    newest: async () => newestIn((await file.load()).map(({ volume }) => numberIn(volume))),
    write: async item =>
      file.save(
        numbersUpTo(item).map(number => ({
          sr: uuidOf(1) as SrId,
          volume: uuidOf(number) as VolumeKey,
          activated: number % 2 === 0,
        }))
      ),
  }
}

function cluster(state: string): SmallFile {
  return {
    newest: async () => (await readClusterFile(state))?.generation ?? 0,
    write: async item =>
      writeClusterFile(state, {
        version: 1,
        phase: 'joined',
        sr: uuidOf(1) as SrId,
        generation: item,
        coordinator: {
          kind: 'etcd',
          members: Array.from({ length: 1 + (item % 16) }, (_, index) => ({
            host: uuidOf(index) as HostId,
            address: '127.0.0.1',
            port: 1 + item,
          })),
        },
      }),
  }
}

/** Each item is a store more. All of them must be on the list, and have their ids where they lie. */
async function stores(state: string, data: string): Promise<SmallFile> {
  await mkdir(data, { recursive: true })
  const all = new Stores({
    host: uuidOf(4) as HostId,
    stateDirectory: state,
    defaultPath: data,
    reload: async () => undefined,
  })
  return {
    newest: async () => {
      const list = await all.attached()
      for (const [index, { sr, store }] of list.entries()) {
        const id = await all.idAt(sr, null)
        if (numberIn(sr) !== index + 1 || id !== store) {
          throw new Error(
            `entry ${index + 1} of stores.json is store ${store} of SR ${sr}, which lies at ${id}`
          )
        }
      }
      return list.length
    },
    write: async item => {
      await all.prepare(uuidOf(item) as SrId, uuidOf(1_000_000 + item) as StoreId, null)
    },
  }
}

async function trust(
  state: string
): Promise<{ readonly members: SmallFile; readonly certificate: SmallFile }> {
  const { certificates, authorityPem } = await readSeed()
  const directory = await TrustDirectory.open(join(state, 'trust'))
  if ((await directory.credentials()) === null) {
    await directory.saveCredentials({ ...certificates[0]!, authoritiesPem: authorityPem })
  }
  return {
    members: {
      newest: async () => newestIn((await directory.members()).map(({ host }) => numberIn(host))),
      write: async item =>
        directory.saveMembers(
          numbersUpTo(item).map(number => ({
            host: uuidOf(number) as HostId,
            admission: String(number),
            certificates: [],
          }))
        ),
    },
    certificate: {
      // There are only a few: which one it is tells the item as far as two that follow each other go.
      newest: async () => {
        const found = await directory.credentials()
        return certificates.findIndex(({ certificatePem }) => certificatePem === found?.certificatePem)
      },
      write: async item => directory.saveCertificate(certificates[item % CYCLE]!),
    },
  }
}

/** Not synced, since it ends with the boot: it may be older or gone, but never torn. */
function references(state: string): SmallFile {
  const path = join(state, 'references.json')
  const file = new ReferenceFile(path, BOOT)
  if (new ReferenceFile(path, 'another boot').load().length > 0) throw new Error('references of another boot')
  return {
    newest: async () => newestIn(file.load().map(({ volume }) => numberIn(volume))),
    write: async item =>
      file.save(
        numbersUpTo(item).map(number => ({
          sr: uuidOf(1) as SrId,
          volume: uuidOf(number) as VolumeKey,
          attached: [],
          activated: [String(number)],
        }))
      ),
  }
}
