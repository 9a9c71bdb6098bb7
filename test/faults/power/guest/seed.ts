import { readFile } from 'node:fs/promises'
import { type Seed, seedSchema } from '../guest-link.ts'

const SEED_FILE = '/xosan/seed.json'

/** Keys and certificates that the machine was given. */
export const readSeed = async (): Promise<Seed> =>
  seedSchema.parse(JSON.parse(await readFile(SEED_FILE, 'utf8')))
