from openai import OpenAI

client = OpenAI(
    api_key="YOUR_API_TOKEN",
    base_url="http://127.0.0.1:8000/v1"
)

tools = [
    {
        "type": "function",
        "function": {
            "name": "get_current_time",
            "description": "获取指定时区的当前时间",
            "parameters": {
                "type": "object",
                "properties": {
                    "timezone": {
                        "type": "string",
                        "description": "时区,如 Asia/Shanghai"
                    }
                },
                "required": ["timezone"]
            }
        }
    }
]

response = client.chat.completions.create(
    model="gpt-4",
    messages=[{"role": "user", "content": "现在北京几点了?"}],
    tools=tools,
    tool_choice="auto"
)

print(response.choices[0].message)
