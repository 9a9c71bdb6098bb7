import { readFile } from 'node:fs/promises'
import { type Disk } from '../../core/ports/disk.ts'
import { type Random } from '../../core/ports/random.ts'
import { type BootId } from '../../core/units.ts'
import { type Config } from '../../daemon/config.ts'
import { bootId } from '../../rpc/identifiers.ts'
import { NodeDisk } from '../disk/node-disk.ts'
import { UnsyncedInMemory } from '../disk/unsynced-in-memory.ts'

/** Opens the file system below a directory. @throws ENOENT, ENOTDIR */
export type OpenDisk = (directory: string) => Promise<Disk>

/** What keeps un-synced writes of this process alive, and the name of it that is told to others. */
interface Power {
  /** Changes when un-synced writes may have been lost. */
  readonly boot: BootId
  /** Changes when domains are gone. */
  readonly kernelBoot: BootId
  readonly openDisk: OpenDisk
  readonly losesUnsynced: boolean
}

/**
 * The page cache of the kernel, named by its boot id; or in a lab that is told so, the memory of this process, named by
 * an id of its own. The disk and the id are made together, because one without the other would be believed.
 */
export async function powerOf({ lab }: Config, random: Random): Promise<Power> {
  const kernelBoot = bootId.parse((await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim())
  if (lab === undefined) {
    return { boot: kernelBoot, kernelBoot, losesUnsynced: false, openDisk: path => NodeDisk.open(path) }
  }
  // A directory that is looked at anew, after a moment without it, shows what was written before.
  const disks = new Map<string, Promise<Disk>>()
  const openDisk = async (path: string): Promise<Disk> => {
    const disk =
      disks.get(path) ??
      NodeDisk.open(path).then(inner => new UnsyncedInMemory(inner, random, lab.unsyncedBytesMax))
    disks.set(path, disk)
    disk.catch(() => disks.delete(path))
    return disk
  }
  return { boot: random.uuid() as BootId, kernelBoot, losesUnsynced: true, openDisk }
}
