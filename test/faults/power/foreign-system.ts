/**
 * The part of the guest that is not ours: Debian's kernel, busybox, Node, etcd and the libraries they need. Made once for
 * each version of them, and kept in a cache.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readdir, realpath, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { PATH, findProgram, requireProgram } from '../../../cli/lab/find-program.ts'
import { PROJECT_ROOT } from '../../simulator/bundle.ts'

const run = promisify(execFile)

export const CACHE = join(PROJECT_ROOT, 'node_modules', '.cache', 'vm-power-cuts')

const WHAT = 'A virtual machine whose power is cut'
/** Program -> Debian package. */
const PROGRAMS = {
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  mke2fs: 'e2fsprogs',
  etcd: 'etcd-server',
  'dpkg-deb': 'dpkg',
  'apt-get': 'apt',
} as const
const PACKAGES_TO_INSTALL = ['qemu-system-x86', 'busybox-static', 'e2fsprogs', 'etcd-server']

/** The smallest of Debian's kernels; ext4 is built into it. Only downloaded and unpacked, never installed. */
const KERNEL_PACKAGE = 'linux-image-cloud-amd64'
/** In the order in which they are loaded. */
const MODULES = [
  'drivers/virtio/virtio_ring.ko',
  'drivers/virtio/virtio.ko',
  'drivers/virtio/virtio_pci_modern_dev.ko',
  'drivers/virtio/virtio_pci_legacy_dev.ko',
  'drivers/virtio/virtio_pci.ko',
  'drivers/block/virtio_blk.ko',
  'drivers/char/virtio_console.ko',
]
const SYSTEM_IMAGE_SIZE = '240M'

export interface ForeignSystem {
  /** Paths on this machine. */
  readonly kernel: string
  readonly modules: readonly string[]
  readonly busybox: string
  /** An ext4 file system with `bin/` and `lib*`. */
  readonly image: string
}

/**
 * Installs what is missing where that is allowed.
 * @throws XosanError PROGRAM_MISSING
 */
export async function requireForeignPrograms(progress: (line: string) => void): Promise<void> {
  const missing = Object.keys(PROGRAMS).some(program => findProgram(program) === null)
  if (missing && process.geteuid?.() === 0 && findProgram('apt-get') !== null) {
    progress(`installing ${PACKAGES_TO_INSTALL.join(' ')} with apt-get`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    const words = ['-qq', '-y', '--no-install-recommends', 'install', ...PACKAGES_TO_INSTALL]
    await run('apt-get', words, { env }).catch(() => undefined)
  }
  for (const [program, packageName] of Object.entries(PROGRAMS)) requireProgram(WHAT, program, packageName)
}

/** Finds the system in the cache, or makes it: it needs Debian's package archive for the kernel. */
export async function foreignSystem(progress: (line: string) => void): Promise<ForeignSystem> {
  const programs = [await realpath(process.execPath), await realpath(findProgram('etcd')!)]
  const kernelPackage = await newestKernel()
  const directory = join(CACHE, await keyOf(kernelPackage, programs))
  if (!(await exists(directory))) {
    progress(`unpacking ${kernelPackage}, and making the guest's system`)
    await mkdir(CACHE, { recursive: true })
    const unfinished = await mkdtemp(join(CACHE, 'unfinished-'))
    try {
      await unpackKernel(unfinished, kernelPackage)
      await makeImage(unfinished, programs)
      await rename(unfinished, directory)
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true })
      throw error
    }
  }
  const kernel = (await readdir(join(directory, 'kernel', 'boot'))).find(name => name.startsWith('vmlinuz'))!
  const [version] = await readdir(join(directory, 'kernel', 'lib', 'modules'))
  return {
    kernel: join(directory, 'kernel', 'boot', kernel),
    modules: MODULES.map(name => join(directory, 'kernel', 'lib', 'modules', version!, 'kernel', name)),
    busybox: findProgram('busybox')!,
    image: join(directory, 'system.img'),
  }
}

/** Name of the package behind the one that always depends on the newest. */
async function newestKernel(): Promise<string> {
  const { stdout } = await run('apt-cache', ['depends', '--important', KERNEL_PACKAGE])
  const name = /Depends: (linux-image-\S+)/.exec(stdout)?.[1]
  if (name === undefined) throw new Error(`apt-cache knows no ${KERNEL_PACKAGE}: try apt-get update`)
  return name
}

async function keyOf(kernelPackage: string, programs: readonly string[]): Promise<string> {
  const parts = [kernelPackage, MODULES.join(), SYSTEM_IMAGE_SIZE]
  for (const path of programs) {
    const { size, mtimeMs } = await stat(path)
    parts.push(`${path} ${size} ${mtimeMs}`)
  }
  return createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 16)
}

async function unpackKernel(directory: string, kernelPackage: string): Promise<void> {
  await run('apt-get', ['-qq', 'download', kernelPackage], { cwd: directory })
  const archive = (await readdir(directory)).find(name => name.endsWith('.deb'))!
  await run('dpkg-deb', ['-x', archive, 'kernel'], { cwd: directory })
  await rm(join(directory, archive))
}

/** The programs with their libraries, where the loader looks for them, as a file system. */
async function makeImage(directory: string, programs: readonly string[]): Promise<void> {
  const root = join(directory, 'system')
  await mkdir(join(root, 'bin'), { recursive: true })
  for (const program of programs) {
    await copyFile(program, join(root, 'bin', program === programs[0] ? 'node' : 'etcd'))
    // It fails for what is linked statically, and then there is nothing to copy.
    const { stdout } = await run('ldd', [program]).catch(() => ({ stdout: '' }))
    for (const [library] of stdout.matchAll(/\/\S+/g)) {
      const copy = join(root, library.replace(/^\/usr\//, '/'))
      await mkdir(join(copy, '..'), { recursive: true })
      await copyFile(library, copy)
    }
  }
  const words = [
    '-q',
    '-t',
    'ext4',
    '-O',
    '^has_journal',
    '-m',
    '0',
    '-d',
    'system',
    'system.img',
    SYSTEM_IMAGE_SIZE,
  ]
  await run('mke2fs', words, { cwd: directory, env: { ...process.env, PATH } })
  await rm(root, { recursive: true })
}

const exists = async (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false
  )
