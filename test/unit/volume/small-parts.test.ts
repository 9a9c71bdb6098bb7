import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { XosanError, ERRORS, type ErrorCode } from '../../../core/errors.ts'
import { type SrId, type VolumeKey } from '../../../core/units.ts'
import { plainNbd } from '../../../datapath/frontends/plain-nbd.ts'
import { parseArguments } from '../../../volume/arguments.ts'
import { flag, size, text } from '../../../volume/call.ts'
import { configuration } from '../../../volume/call.ts'
import { KeyedQueue } from '../../../volume/keyed-queue.ts'
import { ReferenceFile } from '../../../volume/reference-file.ts'
import { References } from '../../../volume/references.ts'
import { smapiError } from '../../../volume/smapi-errors.ts'
import { deviceConfigOf, parseDeviceConfig } from '../../../volume/sr/device-config.ts'
import { usableBytes } from '../../../volume/sr/usable-space.ts'

const SR = '11111111-0000-4000-8000-000000000000' as SrId
const VOLUME = '22222222-0000-4000-8000-000000000000' as VolumeKey

describe('usable space', () => {
  it('is what can be kept twice, on different hosts', () => {
    assert.equal(usableBytes([10, 10], 2), 10)
    assert.equal(usableBytes([10, 4], 2), 4)
    assert.equal(usableBytes([10, 4, 4], 2), 8)
    assert.equal(usableBytes([6, 6, 6], 2), 9)
    assert.equal(usableBytes([10, 10, 10], 3), 10)
    assert.equal(usableBytes([5, 6, 7], 1), 18)
    assert.equal(usableBytes([100], 2), 0)
  })

  it('is the largest number for which every byte finds its hosts', () => {
    const fits = (spaces: number[], copies: number, usable: number) =>
      spaces.reduce((sum, space) => sum + Math.min(space, usable), 0) >= copies * usable
    fc.assert(
      fc.property(
        fc.array(fc.nat(60), { maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (spaces, copies) => {
          const usable = usableBytes(spaces, copies)
          if (spaces.length < copies) return usable === 0
          return fits(spaces, copies, usable) && !fits(spaces, copies, usable + 1)
        }
      )
    )
  })
})

describe('the device-config', () => {
  it('comes back as it was given, with the defaults and the SR in it', () => {
    const record = (given: Record<string, string>) =>
      deviceConfigOf({ sr: SR, configuration: parseDeviceConfig(given, SR) } as never)
    assert.deepEqual(record({}), { sr_uuid: SR, copies: '2', headroom: '10%' })
    const whole = { sr_uuid: SR, path: '/srv/x', copies: '3', headroom: '1073741824' }
    assert.deepEqual(record(whole), whole)
    assert.deepEqual(record({ headroom: '12.5%' })['headroom'], '12.5%')
    assert.throws(() => record({ sr_uuid: VOLUME }), /not the SR's own/)
    assert.throws(() => record({ path: '/a/../b' }), /must be written without/)
  })
})

describe('arguments', () => {
  const parameters = { configuration, name: text, size, sharable: flag }
  const expected = { configuration: { a: 'b', c: 'd' }, name: 'n', size: 4096, sharable: true }

  it('are the same in both conventions, wherever the options stand', () => {
    const lines = [
      ['dbg', '--configuration', 'a', 'b', 'n', '4096', '--configuration', 'c', 'd', 'true'],
      ['--configuration', 'a', 'b', '--configuration', 'c', 'd', '--sharable', 'dbg', 'n', '4096'],
    ]
    for (const argv of lines) assert.deepEqual(parseArguments('X', parameters, argv, ''), expected)
    const json = JSON.stringify({ dbg: 'dbg', ...expected, size: '4096', of_a_newer_xapi: [] })
    assert.deepEqual(parseArguments('X', parameters, ['--json'], json), expected)
  })

  it('take a size only if it is a whole number of bytes that a volume may have', () => {
    for (const wrong of [
      '1.0',
      '1e3',
      '-1',
      '',
      ' 1',
      '0x10',
      '9223372036854775807',
      2 ** 60,
      -1,
      0.5,
      null,
      true,
    ]) {
      assert.throws(() => parseArguments('X', { size }, ['--json'], JSON.stringify({ size: wrong })), {
        code: 'INVALID_ARGUMENT',
      })
    }
  })
})

describe('errors for xapi', () => {
  it('have the shape that xapi reads, for every code and for anything else that was thrown', () => {
    for (const thrown of [
      ...Object.keys(ERRORS).map(code => new XosanError(code as ErrorCode)),
      new Error('x'),
      'x',
      undefined,
    ]) {
      const { code, params, backtrace, ...rest } = smapiError(thrown) as Record<string, unknown>
      assert.match(String(code), /^SR_BACKEND_FAILURE_\d+$/)
      assert.ok(
        Array.isArray(params) && params.length === 3 && params.every(param => typeof param === 'string')
      )
      assert.deepEqual(Object.keys(backtrace as object), ['error', 'files', 'lines'])
      assert.deepEqual(rest, {})
    }
    assert.equal(
      (smapiError(new XosanError('NO_SPACE', { needed: 1, free: 0 })) as { code: string }).code,
      'SR_BACKEND_FAILURE_44'
    )
  })
})

describe('the plain NBD frontend', () => {
  it('names socket and export as clients take them apart', () => {
    assert.deepEqual(plainNbd('/run/x.sock', 'name'), [
      'Nbd',
      { uri: 'nbd:unix:/run/x.sock:exportname=name' },
    ])
  })
})

describe('a keyed queue', () => {
  it('runs tasks of one key in order, also after one that failed, and others meanwhile', async () => {
    const queue = new KeyedQueue<string>()
    const log: string[] = []
    let open: () => void = () => undefined
    const gate = new Promise<void>(resolve => (open = resolve))
    const first = queue.run('a', async () => {
      await gate
      log.push('a1')
      throw new Error('failed')
    })
    const second = queue.run('a', async () => log.push('a2'))
    await queue.run('b', async () => log.push('b'))
    assert.deepEqual(log, ['b'])
    open()
    await assert.rejects(first, /failed/)
    await second
    assert.deepEqual(log, ['b', 'a1', 'a2'])
  })
})

describe('references', () => {
  let directory: string
  let file: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-references-'))
    file = join(directory, 'references.json')
  })
  afterEach(() => rm(directory, { recursive: true }))

  it('outlive the process but not the boot', async () => {
    const references = new References(new ReferenceFile(file, 'boot 1'))
    await references.add(SR, VOLUME, 'attached', '1')
    await references.add(SR, VOLUME, 'activated', '1')
    await references.add(SR, VOLUME, 'activated', '2')
    const again = new References(new ReferenceFile(file, 'boot 1'))
    assert.ok(again.isHeld(VOLUME, 'attached'))
    assert.ok(again.isHeldByOthers(VOLUME, 'activated', '1'))
    assert.ok(!again.isHeldByOthers(VOLUME, 'attached', '1'))
    assert.ok(!again.isHeldByOthers(VOLUME, 'activated', ''))
    assert.deepEqual(again.volumes(), [{ sr: SR, volume: VOLUME }])
    assert.deepEqual(new References(new ReferenceFile(file, 'boot 2')).volumes(), [])
  })

  it('end with the last domain, or with all of them for an empty domain', async () => {
    const references = new References(new ReferenceFile(file, 'boot 1'))
    for (const domain of ['1', '2']) await references.add(SR, VOLUME, 'attached', domain)
    await references.remove(VOLUME, 'attached', 'unknown')
    await references.remove(VOLUME, 'attached', '1')
    assert.ok(references.isHeld(VOLUME, 'attached'))
    await references.add(SR, VOLUME, 'attached', '3')
    await references.remove(VOLUME, 'attached', '')
    assert.deepEqual(references.volumes(), [])
    assert.deepEqual(new References(new ReferenceFile(file, 'boot 1')).volumes(), [])
  })

  it('start empty from a file that cannot be read', async () => {
    await writeFile(file, '{"version":1,"boot":')
    assert.deepEqual(new References(new ReferenceFile(file, 'boot 1')).volumes(), [])
  })
})
