from openai import OpenAI

client = OpenAI(
    api_key="YOUR_API_TOKEN",
    base_url="http://127.0.0.1:8000/v1"
)

stream = client.chat.completions.create(
    model="gpt-4",
    messages=[{"role": "user", "content": "写一首关于春天的诗"}],
    stream=True,
    temperature=0.8
)

for chunk in stream:
    if chunk.choices[0].delta.content is not None:
        print(chunk.choices[0].delta.content, end="")
