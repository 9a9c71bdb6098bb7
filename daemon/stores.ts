/**
 * The stores on this host: directories `<path>/xosan/<sr>/<host>`, each with a `store.json` that carries its id. The
 * id lies on the file system itself, so that an empty mount point is not taken for it. The host's own part of the
 * name lets several hosts of a lab share one machine's directory.
 *
 * `<state directory>/stores.json` lists them for the datapath processes.
 */
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  statfs,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { reasonOf, XosanError } from '../core/errors.ts'
import { byteLength, type ByteLength, type HostId, type SrId, type StoreId } from '../core/units.ts'
import { type StoreRecord } from '../cluster/records.ts'
import { storesFile, type StoresFile } from '../rpc/datapath-api.ts'
import { hostId, srId, storeId } from '../rpc/identifiers.ts'
import { type LocalStores } from '../volume/context.ts'
import { KeyedQueue } from '../volume/keyed-queue.ts'

const identitySchema = z.object({ format: z.literal(1), sr: srId, host: hostId, store: storeId })
type Identity = z.infer<typeof identitySchema>

const IDENTITY_FILE = 'store.json'

interface Space {
  readonly total: ByteLength
  readonly free: ByteLength
}

interface StoresOptions {
  readonly host: HostId
  readonly stateDirectory: string
  readonly defaultPath: string
  /** Tells the datapath processes to read `stores.json` again; those that are down read it when they start. */
  readonly reload: () => Promise<void>
}

/** The stores as the control plane needs them. */
export type HostStores = Omit<LocalStores, 'space'> &
  Pick<Stores, 'checkPath' | 'prepare' | 'remove' | 'attached' | 'volumeNames' | 'space'>

export class Stores implements LocalStores {
  readonly #options: StoresOptions
  readonly #file: string
  /** `stores.json` and the directories change one after the other. */
  readonly #queue = new KeyedQueue<'stores'>()

  constructor(options: StoresOptions) {
    this.#options = options
    this.#file = join(options.stateDirectory, 'stores.json')
  }

  /**
   * Checks that stores can be made below a directory.
   *
   * @param path null for this host's default
   * @throws XosanError INVALID_ARGUMENT when it is missing, no directory or cannot be written
   */
  async checkPath(path: string | null): Promise<Space & { readonly path: string }> {
    const directory = path ?? this.#options.defaultPath
    try {
      // Tried, since permissions alone do not tell: a file system may be read-only, or no real one.
      await rmdir(await mkdtemp(join(directory, '.xosan-')))
    } catch (error) {
      const host = this.#options.host
      throw new XosanError('INVALID_ARGUMENT', {
        what: `path ${directory} on host ${host}`,
        reason: reasonOf(error),
      })
    }
    return { path: directory, ...(await spaceOf(directory)) }
  }

  /**
   * Makes a store, durably, and tells the datapath processes. Does nothing when it is there.
   *
   * @throws XosanError STORE_MISSING when another store is in its place
   */
  async prepare(
    sr: SrId,
    store: StoreId,
    path: string | null
  ): Promise<Space & { readonly directory: string }> {
    const { path: base } = await this.checkPath(path)
    const directory = join(base, 'xosan', sr, this.#options.host)
    return this.#queue.run('stores', async () => {
      const found = await readIdentity(directory)
      if (found !== null && found.store !== store) {
        throw new XosanError('STORE_MISSING', {
          sr,
          path: directory,
          reason: `store ${found.store} is in its place`,
        })
      }
      if (found === null) {
        await makeDirectories(base, ['xosan', sr, this.#options.host])
        await writeDurably(join(directory, IDENTITY_FILE), { format: 1, sr, host: this.#options.host, store })
      }
      await this.#register({ sr, store, directory })
      return { directory, ...(await spaceOf(directory)) }
    })
  }

  /**
   * Removes a store that holds no replica; does nothing when it is not there, or another one is.
   *
   * @throws XosanError STORE_MISSING when it still holds something: nothing is deleted that is not known
   */
  async remove(sr: SrId, store: StoreId, directory: string): Promise<void> {
    await this.#queue.run('stores', async () => {
      await this.#unregister(sr)
      const found = await readIdentity(directory)
      if (found === null || found.store !== store || found.host !== this.#options.host) return
      try {
        await rmdir(join(directory, 'volumes')).catch(ignoreMissing)
        await rm(join(directory, IDENTITY_FILE))
        await rmdir(directory)
      } catch (error) {
        // Back as it was, so that the files which are still there are not orphaned.
        await writeDurably(join(directory, IDENTITY_FILE), found)
        await this.#register({ sr, store, directory })
        throw new XosanError('STORE_MISSING', {
          sr,
          path: directory,
          reason: `it is not empty: ${reasonOf(error)}`,
        })
      }
      // Shared with other hosts of a lab, and with other SRs: the last one to go takes them along.
      await rmdir(dirname(directory)).catch(() => undefined)
      await rmdir(dirname(dirname(directory))).catch(() => undefined)
    })
  }

  async ensure({ store, directory }: StoreRecord, sr: SrId): Promise<void> {
    await this.#queue.run('stores', async () => {
      const found = await readIdentity(directory)
      if (found?.store !== store) {
        const reason = found === null ? 'there is no store' : `store ${found.store} is in its place`
        throw new XosanError('STORE_MISSING', { sr, path: directory, reason })
      }
      await this.#register({ sr, store, directory })
    })
  }

  /** Space of a store's file system. @throws XosanError STORE_MISSING */
  async space(sr: SrId, store: StoreId): Promise<Space> {
    const entry = (await this.#read()).stores.find(
      candidate => candidate.sr === sr && candidate.store === store
    )
    if (entry === undefined) {
      throw new XosanError('STORE_MISSING', {
        sr,
        path: this.#file,
        reason: `store ${store} is not attached`,
      })
    }
    if ((await readIdentity(entry.directory))?.store !== store) {
      throw new XosanError('STORE_MISSING', { sr, path: entry.directory, reason: 'its id is not found' })
    }
    return spaceOf(entry.directory)
  }

  async idAt(sr: SrId, path: string | null): Promise<StoreId | null> {
    const directory = join(path ?? this.#options.defaultPath, 'xosan', sr, this.#options.host)
    const found = await readIdentity(directory)
    return found === null || found.sr !== sr || found.host !== this.#options.host ? null : found.store
  }

  /** Whether there are replicas of an SR here; a store that cannot be looked into may hold some. */
  async holdsData(sr: SrId): Promise<boolean> {
    const entry = (await this.#read()).stores.find(candidate => candidate.sr === sr)
    if (entry === undefined) return false
    if ((await readIdentity(entry.directory).catch(() => null)) === null) return true
    try {
      return (await readdir(join(entry.directory, 'volumes'))).length > 0
    } catch (error) {
      return (error as NodeJS.ErrnoException).code !== 'ENOENT'
    }
  }

  /** The stores that the datapath processes are told of. */
  async attached(): Promise<StoresFile['stores']> {
    return (await this.#read()).stores
  }

  /** Names below `volumes` of a store's directory, where each replica has one. */
  async volumeNames(directory: string): Promise<string[]> {
    return readdir(join(directory, 'volumes')).catch(() => [])
  }

  async #register(entry: StoresFile['stores'][number]): Promise<void> {
    const { stores } = await this.#read()
    const others = stores.filter(({ sr }) => sr !== entry.sr)
    const known = stores.find(({ sr }) => sr === entry.sr)
    if (known?.store !== entry.store || known.directory !== entry.directory)
      await this.#write([...others, entry])
    await this.#options.reload()
  }

  async #unregister(sr: SrId): Promise<void> {
    const { stores } = await this.#read()
    if (!stores.some(entry => entry.sr === sr)) return
    await this.#write(stores.filter(entry => entry.sr !== sr))
    await this.#options.reload()
  }

  async #read(): Promise<StoresFile> {
    try {
      return storesFile.parse(JSON.parse(await readFile(this.#file, 'utf8')))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { version: 1, stores: [] }
      throw new XosanError('RECORD_INVALID', { key: this.#file, reason: reasonOf(error) }, { cause: error })
    }
  }

  async #write(stores: StoresFile['stores']): Promise<void> {
    await writeDurably(this.#file, { version: 1, stores })
  }
}

async function spaceOf(directory: string): Promise<Space> {
  const { blocks, bavail, bsize } = await statfs(directory)
  return { total: byteLength(blocks * bsize), free: byteLength(bavail * bsize) }
}

/** @throws XosanError STORE_MISSING when there is something that cannot be read */
async function readIdentity(directory: string): Promise<Identity | null> {
  const file = join(directory, IDENTITY_FILE)
  try {
    return identitySchema.parse(JSON.parse(await readFile(file, 'utf8')))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw new XosanError(
      'STORE_MISSING',
      { sr: '', path: directory, reason: reasonOf(error) },
      { cause: error }
    )
  }
}

/** Makes directories one below the other and makes each durable in the one above. */
async function makeDirectories(base: string, names: readonly string[]): Promise<void> {
  let parent = await realpath(base)
  for (const name of names) {
    const directory = join(parent, name)
    await mkdir(directory, { mode: 0o700 }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    })
    await syncDirectory(parent)
    parent = directory
  }
}

/** Puts a JSON file in place as a whole: whoever reads it, also after a power cut, sees the old one or the new one. */
async function writeDurably(file: string, content: object): Promise<void> {
  const unfinished = `${file}.new`
  const handle = await open(unfinished, 'w', 0o600)
  try {
    await handle.writeFile(`${JSON.stringify(content)}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(unfinished, file)
  await syncDirectory(dirname(file))
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
}
