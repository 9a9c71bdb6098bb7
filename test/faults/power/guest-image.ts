/** Our part of the guest: an initial RAM file system with the bundled programs, and a script that starts them. */
import { execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { copyFile, cp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { type Plugin, build } from 'esbuild'
import { PATH, findProgram } from '../../../cli/lab/find-program.ts'
import { type HostId, type SrId } from '../../../core/units.ts'
import { createAuthority, createHostKey, issueHostCertificate } from '../../../trust/authority.ts'
import { createRevocationList } from '../../../trust/revocation.ts'
import { PROJECT_ROOT } from '../../simulator/bundle.ts'
import { CACHE, type ForeignSystem } from './foreign-system.ts'
import { type Seed } from './guest-link.ts'
import { CYCLE } from './items.ts'
import { LANES, type LaneKind } from './lanes.ts'
import { type PlantedError } from './planted-errors.ts'

const run = promisify(execFile)

const HERE = join('test', 'faults', 'power')
/** Those that a bundle leaves out, and what they ask for when they run. */
const NATIVE_PACKAGES = [
  ...['better-sqlite3', 'bindings', 'file-uri-to-path'],
  ...[
    'fs-native-extensions',
    'require-addon',
    'bare-addon-resolve',
    'bare-module-resolve',
    'bare-semver',
    'which-runtime',
  ],
]
/** Parts of packages that nothing asks for when they run. */
const LEFT_OUT =
  /\/(deps|src|obj|obj\.target|\.deps|test_extension\.node|prebuilds\/(?!linux-x64)[^/]+)(\/|$)/

/** Where the module of a lane lies in the guest. */
export const modulePath = (kind: LaneKind, planted: PlantedError | null): string =>
  join('/xosan', planted?.patch == null ? '.' : directoryOf(planted), `${kind}.js`)

const directoryOf = ({ name }: PlantedError): string => `planted-${name.replace(/\W+/g, '-')}`

/** @param planted of which there must be modules too @returns path of the image, which is in the work directory */
export async function makeGuestImage(
  directory: string,
  system: ForeignSystem,
  planted: readonly PlantedError[]
): Promise<string> {
  const root = join(directory, 'initramfs')
  for (const name of ['bin', 'modules', 'proc', 'sys', 'dev', 'lanes', 'tmp']) {
    await mkdir(join(root, name), { recursive: true })
  }
  await copyFile(system.busybox, join(root, 'bin', 'busybox'))
  for (const module of system.modules) await copyFile(module, join(root, 'modules', basename(module)))
  const order = system.modules.map(module => `${basename(module)}\n`).join('')
  await writeFile(join(root, 'modules', 'order'), order)
  await writeFile(join(root, 'init'), await readFile(join(PROJECT_ROOT, HERE, 'guest-init.sh')), {
    mode: 0o755,
  })
  await bundle(join(root, 'xosan'), planted)
  await writeFile(join(root, 'xosan', 'seed.json'), JSON.stringify(await newSeed()))
  const image = join(directory, 'initramfs.cpio')
  await pack(root, image)
  await rm(root, { recursive: true })
  return image
}

async function bundle(target: string, planted: readonly PlantedError[]): Promise<void> {
  const kinds = Object.keys(LANES) as LaneKind[]
  // Below the project, where the bundler finds packages; and copied away from there.
  const output = join(CACHE, 'guest-programs')
  await rm(output, { recursive: true, force: true })
  await bundleInto(output, ['main', 'xosan-etcd-gate', ...kinds], [])
  for (const error of planted) {
    if (error.patch !== null)
      await bundleInto(join(output, directoryOf(error)), [error.lane], [patched(error)])
  }
  await cp(output, target, { recursive: true })
  for (const name of NATIVE_PACKAGES) {
    const from = join(PROJECT_ROOT, 'node_modules', name)
    const filter = (path: string): boolean => !LEFT_OUT.test(`/${relative(from, path)}`)
    await cp(from, join(target, 'node_modules', name), {
      recursive: true,
      filter,
    })
  }
  await writeFile(join(target, 'package.json'), '{"type":"module"}')
}

/** As scripts/build.mjs bundles the programs of a release. */
async function bundleInto(outdir: string, names: readonly string[], plugins: Plugin[]): Promise<void> {
  await build({
    absWorkingDir: PROJECT_ROOT,
    entryPoints: names.map(name => ({ in: join(HERE, 'guest', `${name}.ts`), out: name })),
    outdir,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    splitting: true,
    external: ['better-sqlite3', 'fs-native-extensions'],
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    plugins,
    logLevel: 'warning',
  })
}

function patched({ name, patch }: PlantedError): Plugin {
  const { file, find, replace } = patch!
  let applied = false
  return {
    name: 'planted-error',
    setup(context) {
      context.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        if (relative(PROJECT_ROOT, path) !== file) return undefined
        const source = await readFile(path, 'utf8')
        if (source.split(find).length !== 2)
          throw new Error(`${name}: the passage is not in ${file} exactly once`)
        applied = true
        return { contents: source.replace(find, () => replace), loader: 'ts' }
      })
      context.onEnd(() => {
        if (!applied) throw new Error(`${name}: ${file} is not part of the guest`)
      })
    },
  }
}

async function newSeed(): Promise<Seed> {
  const scope = { sr: randomUUID() as SrId, generation: 1 }
  const host = randomUUID() as HostId
  const authority = await createAuthority(scope, new Date())
  const certificates = []
  for (let number = 0; number < CYCLE; number++) {
    const { keyPem, csrPem } = await createHostKey()
    const certificatePem = await issueHostCertificate(authority, {
      csrPem,
      identity: { ...scope, host },
      addresses: ['127.0.0.1'],
      now: new Date(),
    })
    certificates.push({ keyPem, certificatePem })
  }
  const revocationListPem = await createRevocationList(authority, [], new Date())
  return { sr: scope.sr, host, authorityPem: authority.certificatePem, revocationListPem, certificates }
}

/** busybox has a cpio too. */
async function pack(root: string, image: string): Promise<void> {
  const names = ['.', ...(await readdir(root, { recursive: true }))]
  const child = spawn(findProgram('busybox')!, ['cpio', '-o', '-H', 'newc'], {
    cwd: root,
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  child.stdin.end(`${names.join('\n')}\n`)
  await pipeline(child.stdout, createWriteStream(image))
}

/** A new ext4 file system. @returns path of the image */
export async function makeFileSystem(directory: string, name: string, bytes: number): Promise<string> {
  const image = join(directory, `${name}.img`)
  await rm(image, { force: true })
  const words = ['-q', '-t', 'ext4', '-m', '0', '-N', '8192', '-E', 'lazy_itable_init=0,lazy_journal_init=0']
  await run('mke2fs', [...words, image, `${bytes / 1024}K`], { env: { ...process.env, PATH } })
  return image
}
