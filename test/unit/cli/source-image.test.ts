import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { IMAGE_BYTES, makeSourceImage } from '../../../cli/demo/source-image.ts'

describe("the demo's image", () => {
  it('is an archive that tar reads where mke2fs is missing, of the same size', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'xosan-image-'))
    try {
      const [project, work] = [join(directory, 'project'), join(directory, 'work')]
      await mkdir(join(project, 'core'), { recursive: true })
      await mkdir(join(project, '.git'))
      await mkdir(work)
      await writeFile(join(project, 'README.md'), 'x'.repeat(513))
      await writeFile(join(project, 'core', 'units.ts'), '')
      await writeFile(join(project, '.git', 'index'), 'not a source')
      const image = await makeSourceImage(project, work, '')
      assert.deepEqual([image.kind, image.files], ['tar', 2])
      assert.equal((await stat(image.path)).size, IMAGE_BYTES)
      const names = execFileSync('tar', ['-tf', image.path], { encoding: 'utf8' }).trim().split('\n')
      assert.deepEqual(names.sort(), ['README.md', 'core/units.ts'])
      const content = execFileSync('tar', ['-xOf', image.path, 'README.md'])
      assert.deepEqual(content, await readFile(join(project, 'README.md')))
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
})
