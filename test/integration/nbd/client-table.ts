/**
 * Runs every NBD client of this machine against the server and prints what each of them said:
 *
 *     npx tsx test/integration/nbd/client-table.ts
 *
 * Ends with a table; exits with 1 if any client failed. A client that is not installed is named with the reason.
 */
import { NbdRig } from '../../support/nbd-rig.ts'
import { FOREIGN_CLIENTS, type ForeignClient } from './foreign-clients.ts'

interface Row {
  readonly name: string
  readonly result: 'works' | 'FAILS' | 'not run'
  readonly detail: string
}

async function rowOf(client: ForeignClient): Promise<Row> {
  const missing = client.missing()
  if (missing !== null) return { name: client.name, result: 'not run', detail: missing }
  const rig = await NbdRig.start()
  try {
    const output = await client.run(rig)
    console.log(`\n==== ${client.name}\n${output.trimEnd()}`)
    return { name: client.name, result: 'works', detail: client.shows }
  } catch (error) {
    console.log(`\n==== ${client.name} FAILS\n${error instanceof Error ? error.message : String(error)}`)
    return { name: client.name, result: 'FAILS', detail: client.shows }
  } finally {
    await rig.stop()
  }
}

async function main(): Promise<void> {
  const rows: Row[] = []
  for (const client of FOREIGN_CLIENTS) rows.push(await rowOf(client))
  const width = Math.max(...rows.map(row => row.name.length))
  console.log('\n')
  for (const { name, result, detail } of rows) {
    console.log(`${name.padEnd(width)}  ${result.padEnd(7)}  ${detail}`)
  }
  if (rows.some(row => row.result === 'FAILS')) process.exitCode = 1
}

await main()
