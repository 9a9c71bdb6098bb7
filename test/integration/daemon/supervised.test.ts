import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { handleOf, signal, waitForCondition } from '../../../daemon/supervision/process-handle.ts'
import { Supervised } from '../../../daemon/supervision/supervised.ts'

describe('a program that is looked after', () => {
  let directory: string
  beforeEach(async () => (directory = await mkdtemp(join(tmpdir(), 'xosan-supervised-'))))
  afterEach(async () => rm(directory, { recursive: true }))

  it('is started when it is prepared and not before, and what it makes is nobody else’s', async () => {
    const path = join(directory, 'made')
    let tries = 0
    const told: string[] = []
    let heard: () => void = () => undefined
    const program: Supervised = new Supervised(
      {
        name: 'a program',
        program: 'sh',
        arguments: ['-c', `echo > ${path}; stat -c %a ${path}; exec sleep 60`],
        logFile: join(directory, 'log'),
        prepare: async () => {
          tries += 1
          assert.equal(program.run, null)
          return tries < 3 ? Promise.reject(new Error('not yet')) : Promise.resolve()
        },
      },
      { firstMs: 1, longestMs: 2 },
      what => {
        told.push(what)
        heard()
      }
    )
    program.start(null)
    while (program.run === null) await new Promise<void>(resolve => (heard = resolve))
    assert.deepEqual([tries, told.length], [3, 3])
    assert.match(told[0]!, /could not be started: not yet; it is started again in 1 ms/)
    const log = async (): Promise<string> => readFile(join(directory, 'log'), 'utf8')
    while ((await log()) === '') await new Promise(resolve => setImmediate(resolve))
    assert.equal(await log(), '600\n')
    const handle = handleOf(program.run.pid)!
    program.release()
    signal(handle, 'SIGKILL')
    await waitForCondition([handle], 'down', 10_000)
  })
})
