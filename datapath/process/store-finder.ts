import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { storesFile, type StoresFile } from '../../rpc/datapath-api.ts'
import { hostId, srId, storeId } from '../../rpc/identifiers.ts'
import { type OpenDisk } from './lab-power.ts'
import { type Store } from './replica-host.ts'

type StoreEntry = StoresFile['stores'][number]

/** `store.json` in a store's directory: on the very file system that holds the replicas, so that it cannot lie. */
const identityFile = z.object({ format: z.literal(1), sr: srId, host: hostId, store: storeId })

/** A store that was found, and the directory that it was found in. */
interface Found {
  readonly entry: StoreEntry
  readonly device: bigint
  readonly inode: bigint
  readonly store: Store
}

/**
 * Finds the stores of this host. A directory is used only after the id inside has been read: where a file system is not
 * mounted there is an empty directory, or another disk, and a replica made there would be a trap.
 *
 * What was found is remembered for as long as the directory is the same one (device and inode), so a file system
 * that is unmounted, or mounted later, is noticed at the next use.
 */
export class StoreFinder {
  readonly #file: string
  readonly #host: HostId
  readonly #openDisk: OpenDisk
  #entries = new Map<SrId, StoreEntry>()
  readonly #found = new Map<SrId, Found>()
  /** Looks under way. A disk that hangs keeps a thread for one of them, and not for everybody who asks. */
  readonly #looking = new Map<SrId, Promise<Store>>()

  /**
   * @param file `stores.json`, which xosand writes
   * @param openDisk opens the file system below a store's directory
   */
  constructor(file: string, host: HostId, openDisk: OpenDisk) {
    this.#file = file
    this.#host = host
    this.#openDisk = openDisk
  }

  /** Reads `stores.json` again; a missing one names no stores. @throws XosanError RECORD_INVALID: what was known stays */
  async reload(): Promise<void> {
    let stores: readonly StoreEntry[] = []
    try {
      stores = storesFile.parse(JSON.parse(await readFile(this.#file, 'utf8'))).stores
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        throw new XosanError('RECORD_INVALID', { key: this.#file, reason: reasonOf(error) }, { cause: error })
      }
    }
    this.#entries = new Map(stores.map(entry => [entry.sr, entry]))
  }

  /** The store of an SR on this host. @throws XosanError STORE_MISSING when it is not there now */
  async store(sr: SrId): Promise<Store> {
    let looking = this.#looking.get(sr)
    if (looking === undefined) {
      looking = this.#look(sr).finally(() => this.#looking.delete(sr))
      this.#looking.set(sr, looking)
    }
    return looking
  }

  async #look(sr: SrId): Promise<Store> {
    const entry = this.#entries.get(sr)
    if (entry === undefined) {
      throw new XosanError('STORE_MISSING', { sr, path: this.#file, reason: 'the SR is not attached here' })
    }
    const { store, directory } = entry
    try {
      const { dev: device, ino: inode } = await stat(directory, { bigint: true })
      const known = this.#found.get(sr)
      if (known?.entry.store === store && known.device === device && known.inode === inode) return known.store
      const identity = identityFile.parse(JSON.parse(await readFile(join(directory, 'store.json'), 'utf8')))
      if (identity.store !== store || identity.sr !== sr || identity.host !== this.#host) {
        throw new Error(`store ${identity.store} of SR ${identity.sr} and host ${identity.host} is there`)
      }
      const found = { entry, device, inode, store: { id: store, disk: await this.#openDisk(directory) } }
      this.#found.set(sr, found)
      return found.store
    } catch (error) {
      this.#found.delete(sr)
      throw new XosanError(
        'STORE_MISSING',
        { sr, path: directory, reason: reasonOf(error) },
        { cause: error }
      )
    }
  }
}
