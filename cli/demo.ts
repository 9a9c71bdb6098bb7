/**
 * `npm run demo`: three hosts on this machine, one replicated disk, two hosts that die, and every byte accounted
 * for. Reads as the story it tells; each step uses only what xapi and a guest would use.
 *
 *     node dist/demo.js [--keep]     --keep leaves the lab running for a look around
 */
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type VolumeSummary } from '../rpc/control-api.ts'
import { connectDisk } from './lab/guest-disk.ts'
import { type BlockDevice } from '../datapath/block-device.ts'
import { readFromDisk, writeToDisk } from './demo/disk-copy.ts'
import { Narration } from './demo/narration.ts'
import { IMAGE_BYTES, type SourceImage, makeSourceImage } from './demo/source-image.ts'
import { describeFailure } from './failure.ts'
import { formatBytes, formatDuration, formatProgress } from './format.ts'
import { compareFiles, sha256 } from './lab/compare-files.ts'
import { labDown, labHost, labUp } from './lab/lab.ts'
import {
  type PoolHost,
  type PoolSr,
  type PoolVolume,
  closeVolume,
  createSr,
  createVolume,
  openVolume,
  takeOverVolume,
} from './lab/pool.ts'
import { programsDirectory, projectRoot } from '../daemon/supervision/programs.ts'
import { replicaFiles, showVolume, waitUntilInSync } from './lab/volume-watch.ts'

const HOSTS = 3
const DATAPATHS = 2
/** How long the replicas may take to come together, in milliseconds; it takes a few seconds. */
const RESYNC_DEADLINE_MS = 60_000
/** How long a dead host may count as alive, in milliseconds; it takes a few seconds. */
const TAKEOVER_PATIENCE_MS = 30_000

class Demo {
  readonly #work: string
  readonly #lab: string
  readonly #tale = new Narration()
  #hosts: readonly PoolHost[] = []
  #sr!: PoolSr
  #volume!: PoolVolume
  #image!: SourceImage
  #disk: BlockDevice | null = null

  constructor(work: string) {
    this.#work = work
    this.#lab = join(work, 'lab')
  }

  async run(): Promise<boolean> {
    this.#tale.say('XOSAN demo: one virtual disk on three hosts, two of which are going to die.\n')
    await this.#makePool()
    const first = this.#hosts[0]!
    const secondary = await this.#writeWhileAHostDies(first)
    await this.#bringBack(first, secondary)
    await this.#losePrimary(first, secondary)
    await this.#readBack()
    await this.#compareReplicas(first, secondary)
    return this.#tale.conclude()
  }

  /** Was interrupted: only the end is still to be told. */
  interrupt(): void {
    this.#tale.say('\nEnding the lab ...')
    this.#tale.silence()
  }

  /** Ends everything that runs, however far the demo came. */
  async end(keep: boolean): Promise<void> {
    await this.#disk?.close()
    if (keep) {
      this.#tale.say(`The lab is still up: xosan lab status --dir ${this.#lab}`)
      return
    }
    await labDown(this.#lab, false, () => undefined).catch(() => undefined)
    await rm(this.#work, { recursive: true, force: true })
  }

  async #makePool(): Promise<void> {
    await this.#tale.step('Start a pool of three hosts, each with its daemons and its disk.', async live => {
      const options = { hosts: HOSTS, datapaths: DATAPATHS, programs: programsDirectory() }
      const report = await labUp(this.#lab, options, live)
      this.#hosts = report.hosts
      const processes = report.hosts.reduce((sum, { pids }) => sum + Object.keys(pids).length, 0)
      return `${report.hosts.map(({ name }) => name).join(', ')} are up: ${processes} processes, no privileges`
    })
    await this.#tale.step(
      'Make a storage repository and a disk in it, through the scripts that xapi calls.',
      async () => {
        const path = join(this.#lab, 'disks')
        await mkdir(path, { mode: 0o700 })
        this.#sr = await createSr(this.#hosts, randomUUID(), { path, copies: '2' })
        this.#volume = await createVolume(this.#hosts[0]!, this.#sr.sr, 'demo', 2 * IMAGE_BYTES)
        return `SR.create, SR.attach, Volume.create: ${formatBytes(this.#volume.size)}, thin, two copies`
      }
    )
    await this.#tale.step("Put this project's sources and compiler into a disk image.", async () => {
      const work = join(this.#work, 'image')
      await mkdir(work)
      this.#image = await makeSourceImage(projectRoot(), work)
      const { kind, files } = this.#image
      const what = kind === 'ext4' ? 'an ext4 file system' : 'a tar archive (mke2fs is missing here)'
      return `${files} files in ${what} of ${formatBytes(IMAGE_BYTES)}`
    })
  }

  /** @returns the host of the replica that was not local */
  async #writeWhileAHostDies(first: PoolHost): Promise<PoolHost> {
    let secondary = first
    await this.#tale.step(`Attach the disk on ${first.name} and write the image over NBD ...`, async live => {
      const address = await openVolume(first, this.#volume)
      this.#disk = await connectDisk(address)
      const shown = await showVolume(first, this.#volume)
      secondary = this.#otherReplica(shown, first)
      const dying: Promise<void>[] = []
      let killedAt = 0
      const startedAt = performance.now()
      const { longestMs } = await writeToDisk(this.#image.path, this.#disk, IMAGE_BYTES, done => {
        live(formatProgress(done, IMAGE_BYTES, performance.now() - startedAt))
        if (dying.length === 0 && done >= IMAGE_BYTES / 2) {
          killedAt = done
          dying.push(labHost(this.#lab, secondary.name).then(host => host.kill()))
        }
      })
      await Promise.all(dying)
      this.#tale.check(
        `${secondary.name} killed in the middle: writing goes on`,
        `no error, longest wait ${formatDuration(longestMs)}`,
        true
      )
      return `... and half way, after ${formatBytes(killedAt)}, ${secondary.name} dies. The guest waited ${formatDuration(longestMs)} and went on`
    })
    const { replicas } = await showVolume(first, this.#volume)
    const stale = replicas.find(({ host }) => host === secondary.uuid)
    this.#tale.check(
      `the copy on ${secondary.name} is known to be out of date`,
      stale?.state ?? 'not listed',
      stale?.state === 'stale'
    )
    return secondary
  }

  async #bringBack(first: PoolHost, secondary: PoolHost): Promise<void> {
    await this.#tale.step(`${secondary.name} returns; it is brought up to date by itself.`, async live => {
      await (await labHost(this.#lab, secondary.name)).start()
      const startedAt = performance.now()
      let copied = 0
      await waitUntilInSync(first, this.#volume, RESYNC_DEADLINE_MS, ({ replicas }) => {
        const rebuilding = replicas.find(({ host }) => host === secondary.uuid)
        if (rebuilding === undefined || rebuilding.totalBytes === 0) return
        copied = Math.max(copied, rebuilding.totalBytes)
        live(formatProgress(rebuilding.doneBytes, rebuilding.totalBytes, performance.now() - startedAt))
      })
      this.#tale.check(`${secondary.name} is in-sync again`, 'both copies in-sync', true)
      const size = formatBytes(this.#volume.size)
      return `in-sync: ${formatBytes(copied)} of ${size} were copied, the regions where it could differ`
    })
  }

  async #losePrimary(first: PoolHost, secondary: PoolHost): Promise<void> {
    await this.#tale.step(`Now ${first.name} itself dies, the host that served the disk.`, async () => {
      await (await labHost(this.#lab, first.name)).kill()
      await this.#disk?.close()
      this.#disk = await connectDisk(await takeOverVolume(secondary, this.#volume, TAKEOVER_PATIENCE_MS))
      const { primary, epoch } = await showVolume(secondary, this.#volume)
      this.#tale.check(
        `${secondary.name} took the disk over`,
        `primary now ${secondary.name}, epoch ${epoch}`,
        primary === secondary.uuid
      )
      return `${secondary.name} opened it and serves it`
    })
  }

  async #readBack(): Promise<void> {
    await this.#tale.step('Read the image back and compare it with the original.', async () => {
      const copy = join(this.#work, 'copy')
      await readFromDisk(this.#disk!, copy, IMAGE_BYTES)
      const [original, restored] = [
        await sha256(this.#image.path, IMAGE_BYTES),
        await sha256(copy, IMAGE_BYTES),
      ]
      const { bytes, firstDifference } = await compareFiles(this.#image.path, copy, IMAGE_BYTES)
      this.#tale.check('SHA-256 of what was read back', `${restored.slice(0, 16)}…`, original === restored)
      this.#tale.check(
        'byte by byte',
        firstDifference === null ? `${formatBytes(bytes)} equal` : `differs at byte ${firstDifference}`,
        firstDifference === null
      )
      return `sha256 ${restored.slice(0, 16)}… ${original === restored ? 'as written' : 'is not what was written'}`
    })
  }

  async #compareReplicas(first: PoolHost, secondary: PoolHost): Promise<void> {
    await this.#tale.step(`${first.name} returns too; then the two copies' files are compared.`, async () => {
      await (await labHost(this.#lab, first.name)).start()
      await waitUntilInSync(secondary, this.#volume, RESYNC_DEADLINE_MS)
      await this.#disk?.close()
      this.#disk = null
      await closeVolume(secondary, this.#volume)
      const files = [...(await replicaFiles(this.#sr.deviceConfig['path'] ?? '', this.#volume)).values()]
      const [one, two] = files
      if (files.length !== 2 || one === undefined || two === undefined) {
        this.#tale.check('the two copies on disk', `${files.length} files found`, false)
        return `${files.length} files found where two were expected`
      }
      const { bytes, firstDifference } = await compareFiles(one, two, this.#volume.size)
      const same = firstDifference === null
      const result = same ? `${formatBytes(bytes)} equal` : `differ at byte ${firstDifference}`
      this.#tale.check('the two copies on disk', result, same)
      const { firstDifference: fromImage } = await compareFiles(one, this.#image.path, IMAGE_BYTES)
      const raw = fromImage === null ? 'the image, byte for byte' : `differs at byte ${fromImage}`
      this.#tale.check('a copy is a plain raw file', raw, fromImage === null)
      return `${result}; each is a plain raw file that qemu-img opens`
    })
  }

  #otherReplica({ replicas }: VolumeSummary, host: PoolHost): PoolHost {
    const other = replicas.find(replica => replica.host !== host.uuid)
    const found = this.#hosts.find(({ uuid }) => uuid === other?.host)
    if (found === undefined) throw new Error('the disk has no second copy')
    return found
  }
}

async function main(): Promise<number> {
  const demo = new Demo(await mkdtemp(join(tmpdir(), 'xosan-demo-')))
  const keep = process.argv.includes('--keep')
  const interrupted = new Promise<number>(resolve => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.once(name, () => {
        demo.interrupt()
        resolve(130)
      })
    }
  })
  try {
    return await Promise.race([demo.run().then(ok => (ok ? 0 : 1)), interrupted])
  } catch (error) {
    process.stdout.write('\n')
    for (const line of describeFailure(error)) process.stderr.write(`${line}\n`)
    return 1
  } finally {
    await demo.end(keep)
  }
}

process.exit(await main())
