// Uses the official TypeScript clients against a server: node clients.mjs PACKAGE URL, or PACKAGE COMMAND ARG…
// Prints one line of JSON.
const [library, target, ...args] = process.argv.slice(2)
const v1 = library === '@modelcontextprotocol/sdk'

const { Client } = await import(v1 ? `${library}/client/index.js` : library)
const { StreamableHTTPClientTransport } = await import(v1 ? `${library}/client/streamableHttp.js` : library)
const { StdioClientTransport } = await import(v1 ? `${library}/client/stdio.js` : `${library}/stdio`)

const client = new Client({ name: 'test', version: '1' })
await client.connect(target.startsWith('http')
  ? new StreamableHTTPClientTransport(new URL(target))
  : new StdioClientTransport({ command: target, args, env: process.env }))

const call = (name, args, options) => v1
  ? client.callTool({ name, arguments: args }, undefined, options)
  : client.callTool({ name, arguments: args }, options)
const text = result => result.content.filter(c => c.type === 'text').map(c => c.text).join('')

const progress = []
const tools = (await client.listTools()).tools.map(tool => tool.name)
const { session } = (await call('open_session', {})).structuredContent
const ran = await call('exec', { session, command: 'echo hello; exit 3' })
const long = await call('exec', { session, command: 'seq 1 100000; sleep 1000', yield_ms: 10500 },
  { onprogress: p => progress.push(p.message) })
const link = long.content.find(c => c.type === 'resource_link').uri
const resource = (await client.readResource({ uri: link })).contents[0].text
const { execution } = long.structuredContent
const canceled = await call('cancel', { session, execution })
const wrong = await call('exec', { session })
await call('write_file', { session, path: 'f', content: 'one two' })
const edited = await call('edit_file', { session, path: 'f', old: 'one', new: 'three' })
const file = (await call('read_file', { session, path: 'f' })).structuredContent
await call('close_session', { session })
await client.close()

console.log(JSON.stringify({
  tools, ran: text(ran), code: ran.structuredContent.exit_code, state: long.structuredContent.state, progress,
  resource: resource.length, canceled: canceled.structuredContent.reason, wrong: wrong.isError === true && text(wrong),
  edited: text(edited), file: file.content,
}))
