import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compareFiles } from '../../../cli/lab/compare-files.ts'

describe('the comparison of replica files', () => {
  it('finds one byte that differs, where it is, and refuses a file that is too short', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'xosan-compare-'))
    try {
      const [one, two] = [join(directory, 'one'), join(directory, 'two')]
      const content = randomBytes(3 * 1024 * 1024 + 17)
      await writeFile(one, content)
      await writeFile(two, content)
      assert.deepEqual(await compareFiles(one, two, content.length), {
        bytes: content.length,
        firstDifference: null,
      })
      await assert.rejects(compareFiles(one, two, content.length + 1), /ends at/)
      const file = await open(two, 'r+')
      const position = 2 * 1024 * 1024 + 5
      await file.write(Buffer.from([content[position]! ^ 1]), 0, 1, position)
      await file.close()
      assert.equal((await compareFiles(one, two, content.length)).firstDifference, position)
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
})
